-- What is in the archive of a job: its account, and what was captured for it. Without its account it is
-- looked for in all of its month: for operators.
CREATE OR REPLACE FUNCTION punchcard.archived_job(
    p_job_id uuid, p_account_id uuid DEFAULT NULL, OUT account_id uuid, OUT captured bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    month uuid;
BEGIN
    SELECT min(m.end_id::text)::uuid INTO month FROM punchcard.archived_months m
    WHERE m.end_id > p_job_id AND m.archived_at IS NOT NULL;
    SELECT e.account_id, e.captured INTO account_id, captured
    FROM punchcard.archive a, unnest(a.accounts, a.job_ids, a.captured) AS e (account_id, job_id, captured)
    WHERE a.end_id = month AND (p_account_id IS NULL OR e.account_id = p_account_id)
      AND e.job_id = p_job_id AND e.captured IS NOT NULL;
END $$;
