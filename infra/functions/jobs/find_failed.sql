-- The dead letters, newest first: of a kind, an error code, an account, finished within a time; up to p_limit
-- of them, older than the one that finished at p_before_at and has the id p_before_id. Walks past 10,000
-- others at most. `next_*` is behind which the next page begins, of one that came short although there may be
-- more; if there is no job then, there is one row, of that alone.
CREATE OR REPLACE FUNCTION punchcard.find_failed(
    p_kind text, p_code text, p_account_id uuid, p_from timestamptz, p_until timestamptz, p_limit bigint,
    p_before_at timestamptz, p_before_id uuid)
    RETURNS TABLE (job_id uuid, account_id uuid, kind text, price bigint, captured bigint, attempt smallint,
                   crashes smallint, finished_at timestamptz, error json, retried_as uuid,
                   next_at timestamptz, next_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    -- Of all months together, one by one: the walk ends as soon as the page is full.
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    -- Without them, all: so each is a bound of the index, whatever is asked.
    from_at timestamptz := coalesce(p_from, '-infinity');
    until_at timestamptz := coalesce(p_until, 'infinity');
    before_at timestamptz := coalesce(p_before_at, 'infinity');
    before_id uuid := coalesce(p_before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
BEGIN
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT w.*, j.kind, j.price
        FROM (SELECT o.job_id, o.account_id, o.captured, o.attempt, o.crashes, o.finished_at, o.error
              FROM punchcard.outcomes o
              WHERE o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
                AND (o.finished_at, o.job_id) < (before_at, before_id)
              ORDER BY o.finished_at DESC, o.job_id DESC LIMIT 10000) w,
             -- By their keys, one by one.
             LATERAL (SELECT j.kind, j.price FROM punchcard.jobs j
                      WHERE j.account_id = w.account_id AND j.id = w.job_id LIMIT 1) j
        WHERE (p_account_id IS NULL OR w.account_id = p_account_id)
          AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = w.account_id)
          AND (p_code IS NULL OR w.error ->> 'code' = p_code)
          AND (p_kind IS NULL OR j.kind = p_kind)
        ORDER BY w.finished_at DESC, w.job_id DESC LIMIT p_limit
    ), far AS MATERIALIZED (
        SELECT o.finished_at, o.job_id FROM punchcard.outcomes o
        WHERE (SELECT count(*) FROM page) < p_limit
          AND o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
          AND (o.finished_at, o.job_id) < (before_at, before_id)
        ORDER BY o.finished_at DESC, o.job_id DESC OFFSET 9999 LIMIT 1
    )
    SELECT p.job_id, p.account_id, p.kind, p.price, p.captured, p.attempt, p.crashes, p.finished_at, p.error,
           (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = p.job_id), f.finished_at, f.job_id
    FROM (SELECT 1) one LEFT JOIN page p ON true LEFT JOIN far f ON true
    ORDER BY p.finished_at DESC, p.job_id DESC;
END $$;
