-- The dead letters that were not retried yet, in the order of a redrive, oldest first: of a kind, an error
-- code, an account, finished within a time; up to p_limit of them, behind the one that finished at p_after_at
-- and has the id p_after_id. Walks past 10,000 others at most, and says so as `find_failed` does.
CREATE OR REPLACE FUNCTION punchcard.find_redrivable(
    p_kind text, p_code text, p_account_id uuid, p_from timestamptz, p_until timestamptz, p_limit bigint,
    p_after_at timestamptz, p_after_id uuid)
    RETURNS TABLE (job_id uuid, account_id uuid, kind text, price bigint, captured bigint, attempt smallint,
                   crashes smallint, finished_at timestamptz, error json, next_at timestamptz, next_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    from_at timestamptz := coalesce(p_from, '-infinity');
    until_at timestamptz := coalesce(p_until, 'infinity');
    after_at timestamptz := coalesce(p_after_at, '-infinity');
    after_id uuid := coalesce(p_after_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT w.*, j.kind, j.price
        FROM (SELECT o.job_id, o.account_id, o.captured, o.attempt, o.crashes, o.finished_at, o.error
              FROM punchcard.outcomes o
              WHERE o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
                AND (o.finished_at, o.job_id) > (after_at, after_id)
              ORDER BY o.finished_at, o.job_id LIMIT 10000) w,
             LATERAL (SELECT j.kind, j.price FROM punchcard.jobs j
                      WHERE j.account_id = w.account_id AND j.id = w.job_id LIMIT 1) j
        WHERE (p_account_id IS NULL OR w.account_id = p_account_id)
          AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = w.account_id)
          -- What an old system failed at was bought there: it is bought anew only if it is asked for by name.
          AND CASE WHEN p_code IS NULL THEN w.error ->> 'code' IS DISTINCT FROM 'imported'
                   ELSE w.error ->> 'code' = p_code END
          AND (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = w.job_id) IS NULL
          AND (p_kind IS NULL OR j.kind = p_kind)
        ORDER BY w.finished_at, w.job_id LIMIT p_limit
    ), far AS MATERIALIZED (
        SELECT o.finished_at, o.job_id FROM punchcard.outcomes o
        WHERE (SELECT count(*) FROM page) < p_limit
          AND o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
          AND (o.finished_at, o.job_id) > (after_at, after_id)
        ORDER BY o.finished_at, o.job_id OFFSET 9999 LIMIT 1
    )
    SELECT p.job_id, p.account_id, p.kind, p.price, p.captured, p.attempt, p.crashes, p.finished_at, p.error,
           f.finished_at, f.job_id
    FROM (SELECT 1) one LEFT JOIN page p ON true LEFT JOIN far f ON true
    ORDER BY p.finished_at, p.job_id;
END $$;
