-- Of `find_entries`, the holds: the jobs that were not free. p_before_id is what an id is at most, so that an
-- index finds them.
CREATE OR REPLACE FUNCTION punchcard.find_holds(
    p_account_id uuid, p_before_at timestamptz, p_before_key uuid, p_before_part smallint, p_before_id uuid,
    p_limit bigint)
    RETURNS TABLE (at timestamptz, key uuid, part smallint, entry bigint, kind text, available bigint,
                   held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text,
                   reason text, share smallint, created_at timestamptz)
    LANGUAGE sql STABLE AS $$
    SELECT punchcard.uuid_time(j.id) AS at, j.id AS key, 0::smallint AS part, j.entry, 'hold', -j.price,
           j.price, j.available_after, j.held_after, j.id, NULL::text, NULL::text, j.share, j.created_at
    FROM (SELECT j.* FROM punchcard.jobs j
          WHERE j.account_id = p_account_id AND j.id <= p_before_id
            AND j.id >= (SELECT r.archived_before FROM punchcard.retention r)
          ORDER BY j.id DESC LIMIT 10000) j
    WHERE j.price > 0 AND (punchcard.uuid_time(j.id), j.id, 0) < (p_before_at, p_before_key, p_before_part)
    ORDER BY j.id DESC LIMIT p_limit
$$;
