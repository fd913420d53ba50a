-- Prepares another try of p_job_id, which must be failed or canceled, of this account, and not retried yet.
-- Locks the account, and notes what it is retried as: p_retried_as, or a new id; answers that. Who retries it
-- just now is waited for. Raises PT404 not_found · PT410 gone · PT409 not_retryable, already_retried · PT403
-- account_closed.
CREATE OR REPLACE FUNCTION punchcard.check_retry_of(p_job_id uuid, p_account_id uuid, p_retried_as uuid)
    RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended punchcard.outcomes;
    retried uuid;
BEGIN
    -- The account before the retry's key, as before all else that others may hold (`lock_job`); by share 0,
    -- which whoever takes several shares takes first.
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    p_retried_as := coalesce(p_retried_as, punchcard.uuid_v7());
    -- The way that a job goes: one that ends meanwhile is in the second place.
    IF EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = p_job_id AND q.account_id = p_account_id) THEN
        RAISE EXCEPTION 'not_retryable' USING ERRCODE = 'PT409', DETAIL = 'The job is not final yet.';
    END IF;
    SELECT * INTO ended FROM punchcard.outcomes o
    WHERE o.job_id = p_job_id AND o.account_id = p_account_id;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_gone(p_job_id);
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF ended.status = 'succeeded' THEN
        RAISE EXCEPTION 'not_retryable' USING ERRCODE = 'PT409', DETAIL = 'The job succeeded.';
    END IF;
    INSERT INTO punchcard.retries (job_id, retried_as) VALUES (p_job_id, p_retried_as) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.retried_as INTO STRICT retried FROM punchcard.retries r WHERE r.job_id = p_job_id;
        RAISE EXCEPTION 'already_retried' USING ERRCODE = 'PT409',
            DETAIL = json_build_object('detail', 'The job has been retried already.',
                                       'retried_as', retried)::text;
    END IF;
    RETURN p_retried_as;
END $$;
