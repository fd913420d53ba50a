-- Locks a job's account, and then the job, and answers it; NULL if nothing is left to be done of it. In this
-- order in everything that users may call in transactions of their own: who holds an account and wants one
-- more of its jobs never meets somebody who holds that job and wants the account. A worker has them in the
-- other order, for a moment: it is waited for without the account.
CREATE OR REPLACE FUNCTION punchcard.lock_job(p_job_id uuid, p_account_id uuid) RETURNS punchcard.queue
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job punchcard.queue;
    payer uuid;
    payers_share smallint;
BEGIN
    LOOP
        SELECT q.account_id, q.share INTO payer, payers_share FROM punchcard.queue q
        WHERE q.job_id = p_job_id AND q.account_id = coalesce(p_account_id, q.account_id);
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        BEGIN
            PERFORM FROM punchcard.accounts a WHERE a.id = payer AND a.share = payers_share FOR NO KEY UPDATE;
            SELECT * INTO STRICT job FROM punchcard.queue q
            WHERE q.job_id = p_job_id FOR NO KEY UPDATE SKIP LOCKED;
            RETURN job;
        EXCEPTION WHEN no_data_found THEN
            NULL;  -- gone, or somebody has it; the account is let go of
        END;
        BEGIN
            PERFORM FROM punchcard.queue q WHERE q.job_id = p_job_id FOR NO KEY UPDATE;
            RAISE no_data_found;
        EXCEPTION WHEN no_data_found THEN
            NULL;  -- now nobody has it, and neither have we
        END;
    END LOOP;
END $$;
