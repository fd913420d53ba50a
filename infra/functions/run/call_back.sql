-- What somebody outside says of the run p_lease_token that waits for them, or whose worker has yet to say
-- that it does. With `progress` it goes on; `complete`, `retry` (after p_delay seconds, failed if that was
-- the last attempt), `fail` and `reject` end it, once. p_used: as in `settle`. Answers how the job stands
-- then, and whether it is to be canceled. Raises PT404 not_found · PT410 gone · PT409 callback_used (the job
-- is final), callback_expired (another run, or its time is up).
CREATE OR REPLACE FUNCTION punchcard.call_back(
    p_job_id uuid, p_lease_token bigint, p_verdict text, p_delay double precision DEFAULT 0,
    p_output text DEFAULT NULL, p_code text DEFAULT NULL, p_message text DEFAULT NULL,
    p_used bigint DEFAULT NULL, p_percent smallint DEFAULT NULL,
    OUT status text, OUT cancel_requested boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job punchcard.queue;
    verdict text := p_verdict;
    error text;
BEGIN
    -- The job alone: what it moves waits, if somebody holds its account, and it does not.
    SELECT * INTO job FROM punchcard.queue q WHERE q.job_id = p_job_id FOR NO KEY UPDATE;
    IF job.job_id IS NULL THEN
        IF EXISTS (SELECT FROM punchcard.outcomes o WHERE o.job_id = p_job_id) THEN
            RAISE EXCEPTION 'callback_used' USING ERRCODE = 'PT409', DETAIL = 'The job is final already.';
        END IF;
        PERFORM punchcard.refuse_gone(p_job_id);
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF job.lease_token <> p_lease_token
        OR (coalesce(job.lease_expires_at, job.waiting_until) > clock_timestamp()) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'callback_expired' USING ERRCODE = 'PT409',
            DETAIL = 'The job does not wait for this call any more.';
    END IF;
    cancel_requested := job.cancel_requested_at IS NOT NULL;
    IF verdict = 'progress' THEN
        UPDATE punchcard.queue q
        SET progress_percent = coalesce(p_percent, q.progress_percent),
            progress_message = coalesce(p_message, q.progress_message), progress_at = now()
        WHERE q.job_id = p_job_id;
        status := 'running';
        RETURN;
    END IF;
    IF verdict = 'retry' AND job.attempt >= job.max_attempts THEN
        verdict := 'fail';
    END IF;
    IF verdict <> 'complete' THEN
        error := json_build_object('code', p_code, 'message', p_message, 'attempt', job.attempt);
    END IF;
    SELECT s.status INTO STRICT status
    FROM punchcard.settle(ARRAY[p_job_id], ARRAY[p_lease_token], ARRAY[verdict], ARRAY[p_delay],
                          ARRAY[p_output], ARRAY[error], ARRAY[p_used], p_rescue => true) s;
END $$;
