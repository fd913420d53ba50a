-- Refunds what was captured for a job, once, by the operator's decision. Answers the amount, and the job's
-- account. Raises PT404 not_found · PT410 gone (its entries are carried) · PT409 nothing_captured,
-- already_refunded.
CREATE OR REPLACE FUNCTION punchcard.refund(
    p_job_id uuid, p_reason text DEFAULT NULL, OUT account_id uuid, OUT amount bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text := 'refund:' || p_job_id;
BEGIN
    -- The way that a job goes, as in `check_retry_of`.
    PERFORM FROM punchcard.queue q WHERE q.job_id = p_job_id;
    IF NOT FOUND THEN
        SELECT o.account_id, o.captured INTO account_id, amount FROM punchcard.outcomes o
        WHERE o.job_id = p_job_id;
    END IF;
    IF NOT FOUND THEN
        SELECT a.account_id, a.captured INTO account_id, amount FROM punchcard.archived_job(p_job_id) a
        WHERE a.account_id IS NOT NULL;
    END IF;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_gone(p_job_id);
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is no such job.';
    END IF;
    IF p_job_id < (SELECT r.carrying_before FROM punchcard.retention r) THEN
        PERFORM punchcard.refuse_gone(p_job_id, true);
    END IF;
    IF coalesce(amount, 0) = 0 THEN
        RAISE EXCEPTION 'nothing_captured' USING ERRCODE = 'PT409',
            DETAIL = 'Nothing was captured for this job.';
    END IF;
    -- The account's lock first: whoever holds it sees every earlier refund.
    PERFORM FROM punchcard.accounts a WHERE a.id = account_id AND a.share = 0 FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM punchcard.movements m WHERE m.job_id = p_job_id) THEN
        RAISE EXCEPTION 'already_refunded' USING ERRCODE = 'PT409',
            DETAIL = 'This job has its one adjustment already.';
    END IF;
    -- A movement from outside may bear that key: it is no reason to keep what was captured.
    PERFORM FROM punchcard.movements m
    WHERE m.account_id = refund.account_id AND m.idempotency_key = key AND m.job_id IS DISTINCT FROM p_job_id;
    IF FOUND THEN
        key := key || ':' || punchcard.uuid_v7();
    END IF;
    PERFORM punchcard.move_credits('adjust', account_id, amount, key, p_job_id, p_reason);
END $$;
