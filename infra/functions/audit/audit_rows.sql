-- What is wrong with rows that name a job, of the next jobs behind p_after (NULL: from the first on), some
-- p_rows of each table; answers as `audit_accounts` does.
CREATE OR REPLACE FUNCTION punchcard.audit_rows(p_after uuid, p_rows bigint DEFAULT 20000)
    RETURNS TABLE (invariant text, subject uuid, finding text, next_after uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    SET work_mem = '64MB' AS $$
BEGIN
    SELECT min(l.job_id::text)::uuid INTO next_after FROM (
        (SELECT q.job_id FROM punchcard.queue q WHERE p_after IS NULL OR q.job_id > p_after
         ORDER BY q.job_id OFFSET p_rows LIMIT 1)
        UNION ALL
        (SELECT d.job_id FROM punchcard.deferred_entries d WHERE p_after IS NULL OR d.job_id > p_after
         ORDER BY d.job_id OFFSET p_rows LIMIT 1)
        UNION ALL
        (SELECT b.job_id FROM punchcard.outbox b WHERE p_after IS NULL OR b.job_id > p_after
         ORDER BY b.job_id OFFSET p_rows LIMIT 1)
        UNION ALL
        (SELECT d.job_id FROM punchcard.deliveries d WHERE p_after IS NULL OR d.job_id > p_after
         ORDER BY d.job_id OFFSET p_rows LIMIT 1)) l;
    RETURN QUERY
    SELECT r.invariant, r.subject, r.finding, audit_rows.next_after
    FROM (SELECT 1) one
    LEFT JOIN punchcard.audit_rows_between(
        p_after, coalesce(audit_rows.next_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff')) r ON true;
END $$;
