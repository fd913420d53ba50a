-- The job p_job_id that a key bought, as it was bought; if the key, which was used for p_used_for, is used
-- for the same. Raises PT410 gone, if the job is past its retention and the key is not, and PT403
-- account_closed.
CREATE OR REPLACE FUNCTION punchcard.replay_job(
    p_account_id uuid, p_job_id uuid, p_used_for uuid, p_hash uuid,
    OUT job_id uuid, OUT price bigint, OUT max_attempts smallint, OUT run_at timestamptz,
    OUT created_at timestamptz, OUT expires_at timestamptz, OUT priority smallint)
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    IF p_used_for <> p_hash THEN
        RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
            DETAIL = 'This key was used for another request.';
    END IF;
    SELECT j.id, j.price, j.max_attempts, coalesce(j.scheduled_at, j.created_at), j.created_at, j.expires_at,
           j.priority
    INTO job_id, price, max_attempts, run_at, created_at, expires_at, priority
    FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id = p_job_id;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_gone(p_job_id, true);
        RAISE no_data_found;
    END IF;
END $$;
