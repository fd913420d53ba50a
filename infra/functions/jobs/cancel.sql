-- Cancels a job, of p_account_id or, if NULL, of anybody. A queued one is canceled at once: 'canceled'. A
-- running one is asked to stop, and its worker told when it checks in: 'running'; if it succeeds first, it
-- has. One that waits outside is canceled at once, and the kind's `cancel_url` told. Before its first run it
-- costs nothing; once it runs, waits, or has run (`has_run`), the kind's `on_cancel` says what it costs.
-- Refuses by raising: PT404 not_found · PT409 not_cancelable (final; or the kind refuses).
CREATE OR REPLACE FUNCTION punchcard.cancel(p_job_id uuid, p_account_id uuid DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job punchcard.queue;
BEGIN
    -- A worker that claims it, or settles it, is waited for: then this sees what it did.
    job := punchcard.lock_job(p_job_id, p_account_id);
    -- Those of an account that is erased are canceled with it, and are there for nobody.
    IF EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = job.account_id) THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF job.job_id IS NULL THEN
        IF EXISTS (SELECT FROM punchcard.outcomes o
                   WHERE o.job_id = p_job_id AND o.account_id = coalesce(p_account_id, o.account_id)
                     AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = o.account_id))
        THEN
            PERFORM punchcard.refuse_gone(p_job_id);
            RAISE EXCEPTION 'not_cancelable' USING ERRCODE = 'PT409', DETAIL = 'The job is final already.';
        END IF;
        PERFORM punchcard.refuse_gone(p_job_id);
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF (SELECT t.on_cancel FROM punchcard.kind_terms t WHERE t.id = job.terms_id) = 'refuse'
        AND (coalesce(job.lease_expires_at, job.waiting_until) IS NOT NULL OR job.has_run)
    THEN
        RAISE EXCEPTION 'not_cancelable' USING ERRCODE = 'PT409',
            DETAIL = 'Jobs of this kind cannot be canceled once they are running, or have run.';
    END IF;
    UPDATE punchcard.queue q SET cancel_requested_at = now()
    WHERE q.job_id = p_job_id AND q.cancel_requested_at IS NULL;
    IF job.lease_expires_at IS NOT NULL THEN
        RETURN 'running';
    END IF;
    PERFORM punchcard.settle(ARRAY[job.job_id], ARRAY[job.lease_token], ARRAY['cancel'], ARRAY[0],
                             ARRAY[NULL], ARRAY[NULL], p_rescue => true);
    RETURN 'canceled';
END $$;
