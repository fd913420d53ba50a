-- A page of an account's ledger, newest first: up to p_limit entries, kept, archived or carried, but not what
-- was shifted between its shares, before the one at p_at (in microseconds since 1970) of p_key and p_part. In
-- the order of their time; what has the same, in that of `key`: the job's id, or a number of its own. Of one
-- end the capture (1) comes before the release (2). Walks past 10,000 jobs at most, which were free, and as
-- many ends. `next_*` is where the next page begins, in each row; if there may be one, and no entry, there is
-- one row, of that alone.
CREATE OR REPLACE FUNCTION punchcard.find_entries(
    p_account_id uuid, p_at bigint, p_key uuid, p_part smallint, p_limit bigint)
    RETURNS TABLE (id bigint, kind text, available_delta bigint, held_delta bigint, available_after bigint,
                   held_after bigint, job_id uuid, idempotency_key text, reason text, created_at timestamptz,
                   share smallint, next_at bigint, next_key uuid, next_part smallint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- What it calls is planned with it.
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict error
DECLARE
    before_at timestamptz := coalesce(
        timestamptz 'epoch' + p_at / 1000000 * interval '1 second'
            + p_at % 1000000 * interval '1 microsecond', 'infinity');
    before_key uuid := coalesce(p_key, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    before_part smallint := coalesce(p_part, CASE WHEN p_at IS NULL THEN 1 ELSE 0 END);
    -- A job's own place, or no job of a later microsecond: which of this one, the key says.
    before_id uuid := CASE WHEN p_at IS NULL OR punchcard.uuid_time(before_key) = before_at THEN before_key
                           ELSE punchcard.first_id(before_at + interval '1 microsecond') END;
BEGIN
    RETURN QUERY
    WITH moved AS MATERIALIZED (
        SELECT * FROM punchcard.find_movements(p_account_id, before_at, before_key, p_limit)
    ), bought AS MATERIALIZED (
        SELECT * FROM punchcard.find_holds(p_account_id, before_at, before_key, before_part, before_id,
                                           p_limit)
    ), ended AS MATERIALIZED (
        SELECT * FROM punchcard.find_ends(p_account_id, before_at, before_key, before_part, p_limit)
    ), far AS MATERIALIZED (
        -- Where a walk ended that found too few. What lies behind is for the next page.
        SELECT f.at, f.key FROM (
            SELECT punchcard.uuid_time(j.id) AS at, j.id AS key FROM punchcard.jobs j
            WHERE (SELECT count(*) FROM bought) < p_limit AND j.account_id = p_account_id
              AND j.id <= before_id AND j.id >= (SELECT r.archived_before FROM punchcard.retention r)
            ORDER BY j.id DESC OFFSET 9999 LIMIT 1) f
        UNION ALL
        SELECT f.at, f.key FROM (
            SELECT o.finished_at AS at, o.job_id AS key FROM punchcard.outcomes o
            WHERE (SELECT count(*) FROM ended) < p_limit AND o.account_id = p_account_id
              AND o.finished_at <= before_at AND (o.finished_at, o.job_id) <= (before_at, before_key)
              AND o.job_id >= (SELECT r.archived_before FROM punchcard.retention r)
            ORDER BY o.finished_at DESC, o.job_id DESC OFFSET 9999 LIMIT 1) f
    ), cut AS MATERIALIZED (
        SELECT f.at, f.key FROM far f ORDER BY f.at DESC, f.key DESC LIMIT 1
    ), kept AS MATERIALIZED (
        SELECT l.* FROM (SELECT * FROM moved UNION ALL SELECT * FROM bought UNION ALL SELECT * FROM ended) l
        ORDER BY l.at DESC, l.key DESC, l.part DESC LIMIT p_limit
    ), page AS MATERIALIZED (
        SELECT l.*
        FROM (SELECT * FROM kept
              UNION ALL
              SELECT a.* FROM punchcard.find_archived(
                  p_account_id, before_at, before_key, before_part,
                  coalesce((SELECT min(k.at) FROM kept k HAVING count(*) = p_limit), '-infinity'),
                  p_limit) a) l
        WHERE NOT EXISTS (SELECT FROM cut c WHERE (l.at, l.key) < (c.at, c.key))
        ORDER BY l.at DESC, l.key DESC, l.part DESC LIMIT p_limit
    ), next AS (
        SELECT * FROM (SELECT p.at, p.key, p.part FROM page p ORDER BY p.at, p.key, p.part LIMIT 1) p
        WHERE (SELECT count(*) FROM page) = p_limit
        UNION ALL
        SELECT c.at, c.key, 0::smallint FROM cut c WHERE (SELECT count(*) FROM page) < p_limit
    )
    SELECT p.entry, p.kind, p.available, p.held, p.available_after, p.held_after, p.job_id,
           p.idempotency_key, p.reason, p.created_at, p.share,
           (extract(epoch FROM n.at) * 1000000)::bigint, n.key, n.part
    FROM (SELECT 1) one LEFT JOIN page p ON true LEFT JOIN next n ON true
    ORDER BY p.at DESC, p.key DESC, p.part DESC;
END $$;
