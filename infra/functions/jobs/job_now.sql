-- A job as it is now, of p_account_id or, if NULL, of anybody; no row if it is not there. VOLATILE, so that
-- it sees what an earlier part of the same statement has done.
CREATE OR REPLACE FUNCTION punchcard.job_now(p_job_id uuid, p_account_id uuid)
    RETURNS SETOF punchcard.jobs_now
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT n.* FROM punchcard.jobs_between(p_job_id, p_job_id) n
    WHERE n.id = p_job_id
      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = n.account_id)
      AND n.account_id = coalesce(p_account_id,
                                  (SELECT q.account_id FROM punchcard.queue q WHERE q.job_id = p_job_id),
                                  (SELECT o.account_id FROM punchcard.outcomes o WHERE o.job_id = p_job_id));
END $$;
