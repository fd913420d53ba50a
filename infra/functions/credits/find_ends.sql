-- Of `find_entries`, what became of the holds: of each end what was captured and what was released, as far as
-- these are not 0, with the numbers that they have, or will have once they are entered.
CREATE OR REPLACE FUNCTION punchcard.find_ends(
    p_account_id uuid, p_before_at timestamptz, p_before_key uuid, p_before_part smallint, p_limit bigint)
    RETURNS TABLE (at timestamptz, key uuid, part smallint, entry bigint, kind text, available bigint,
                   held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text,
                   reason text, share smallint, created_at timestamptz)
    LANGUAGE sql STABLE AS $$
    WITH waiting AS MATERIALIZED (
        SELECT w.* FROM punchcard.waiting_entries w WHERE w.account_id = p_account_id
    )
    -- By their keys, one by one, whatever the statistics say.
    SELECT o.finished_at AS at, o.job_id AS key, l.part, coalesce(o.entry, d.entry, w.entry) AS entry,
           l.kind, l.available, l.held,
           coalesce(o.available_after, d.available_after, w.available_after) - l.later,
           coalesce(o.held_after, d.held_after, w.held_after) + l.later, o.job_id, NULL::text, NULL::text,
           o.share, o.finished_at
    FROM (SELECT o.job_id, o.finished_at, o.captured, o.entry, o.available_after, o.held_after, o.share
          FROM punchcard.outcomes o
          WHERE o.account_id = p_account_id AND o.finished_at <= p_before_at
            AND (o.finished_at, o.job_id) <= (p_before_at, p_before_key)
            AND o.job_id >= (SELECT r.archived_before FROM punchcard.retention r)
          ORDER BY o.finished_at DESC, o.job_id DESC LIMIT 10000) o
    CROSS JOIN LATERAL (
        SELECT j.price FROM punchcard.jobs j
        WHERE j.account_id = p_account_id AND j.id = o.job_id LIMIT 1) j
    LEFT JOIN LATERAL (
        SELECT d.entry, d.available_after, d.held_after FROM punchcard.deferred_entries d
        WHERE d.job_id = o.job_id AND o.entry IS NULL LIMIT 1) d ON true
    LEFT JOIN LATERAL (
        SELECT w.entry, w.available_after, w.held_after FROM waiting w
        WHERE w.job_id = o.job_id AND o.entry IS NULL LIMIT 1) w ON true
    CROSS JOIN LATERAL (VALUES
        (2::smallint, 'release', j.price - o.captured, o.captured - j.price, 0::bigint),
        (1::smallint, 'capture', 0::bigint, -o.captured, j.price - o.captured))
        AS l (part, kind, available, held, later)
    WHERE l.held < 0 AND (o.finished_at, o.job_id, l.part) < (p_before_at, p_before_key, p_before_part)
    ORDER BY o.finished_at DESC, o.job_id DESC, l.part DESC LIMIT p_limit
$$;
