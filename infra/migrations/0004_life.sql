-- What is done to a job from outside between its purchase and its end, and after: cancel, retry, refund; and what its
-- worker says of it meanwhile. Each is one call, and goes with the caller's transaction, if there is one.

-- Locks a job's account, and then the job, and answers it; NULL if nothing is left to be done of it. In this order in everything
-- that users may call in transactions of their own: who holds an account and wants one more of its jobs never meets somebody
-- who holds that job and wants the account. A worker has them in the other order, for a moment: it is waited for without the
-- account.
CREATE FUNCTION punchcard.lock_job(p_job_id uuid, p_account_id uuid) RETURNS punchcard.queue
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
            SELECT * INTO STRICT job FROM punchcard.queue q WHERE q.job_id = p_job_id FOR NO KEY UPDATE SKIP LOCKED;
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

-- A job as it is now, of p_account_id or, if NULL, of anybody; no row if it is not there. VOLATILE, so that
-- it sees what an earlier part of the same statement has done.
CREATE FUNCTION punchcard.job_now(p_job_id uuid, p_account_id uuid) RETURNS SETOF punchcard.jobs_now
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n FROM punchcard.jobs_now n
    WHERE n.id = p_job_id
      AND n.account_id = coalesce(p_account_id,
                                  (SELECT q.account_id FROM punchcard.queue q WHERE q.job_id = p_job_id),
                                  (SELECT o.account_id FROM punchcard.outcomes o WHERE o.job_id = p_job_id))
$$;

-- Cancels a job, of p_account_id or, if NULL, of anybody. A queued one is canceled at once: 'canceled'. A
-- running one is asked to stop, and its worker told when it checks in: 'running'; if it succeeds first, it
-- has. One that waits outside is canceled at once, and the kind's `cancel_url` told. Before its first run it
-- costs nothing; once it runs, waits, or has run (`has_run`), the kind's `on_cancel` says what it costs.
-- Refuses by raising: PT404 not_found · PT409 not_cancelable (final; or the kind refuses).
CREATE FUNCTION punchcard.cancel(p_job_id uuid, p_account_id uuid DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job punchcard.queue;
BEGIN
    -- A worker that claims it, or settles it, is waited for: then this sees what it did.
    job := punchcard.lock_job(p_job_id, p_account_id);
    IF job.job_id IS NULL THEN
        IF EXISTS (SELECT FROM punchcard.outcomes o
                   WHERE o.job_id = p_job_id AND o.account_id = coalesce(p_account_id, o.account_id))
        THEN
            RAISE EXCEPTION 'not_cancelable' USING ERRCODE = 'PT409', DETAIL = 'The job is final already.';
        END IF;
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF job.on_cancel = 'refuse'
        AND (coalesce(job.lease_expires_at, job.waiting_until) IS NOT NULL OR punchcard.has_run(job.job_id))
    THEN
        RAISE EXCEPTION 'not_cancelable' USING ERRCODE = 'PT409',
            DETAIL = 'Jobs of this kind cannot be canceled once they are running, or have run.';
    END IF;
    UPDATE punchcard.queue q SET cancel_requested_at = now()
    WHERE q.job_id = p_job_id AND q.cancel_requested_at IS NULL;
    IF job.lease_expires_at IS NOT NULL THEN
        RETURN 'running';
    END IF;
    PERFORM punchcard.settle(ARRAY[job.job_id], ARRAY[job.lease_token], ARRAY['cancel'], ARRAY[0], ARRAY[NULL], ARRAY[NULL],
                             p_rescue => true);
    RETURN 'canceled';
END $$;

-- What a worker says of the jobs that it is running, and hears: notes their progress and what they save, and answers those of
-- which something was noted, and those that are to be canceled. NULLs are nothing new. A job that somebody else holds is not
-- waited for: what is said of it is to be said again.
CREATE FUNCTION punchcard.check_in(
    p_job_ids uuid[], p_lease_tokens bigint[], p_percents smallint[], p_messages text[], p_checkpoints text[])
    RETURNS TABLE (job_id uuid, noted boolean, to_cancel boolean)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
    WITH said AS MATERIALIZED (
        SELECT * FROM unnest(p_job_ids, p_lease_tokens, p_percents, p_messages, p_checkpoints)
            AS s (job_id, lease_token, percent, message, checkpoint)
        ORDER BY s.job_id
    ), free AS MATERIALIZED (
        SELECT s.* FROM said s JOIN punchcard.queue q ON q.job_id = s.job_id
        WHERE q.lease_token = s.lease_token AND q.lease_expires_at > clock_timestamp()
          AND (s.percent IS NOT NULL OR s.message IS NOT NULL OR s.checkpoint IS NOT NULL)
        FOR NO KEY UPDATE OF q SKIP LOCKED
    ), noted AS (
        UPDATE punchcard.queue q
        SET progress_percent = coalesce(s.percent, q.progress_percent),
            progress_message = coalesce(s.message, q.progress_message),
            progress_at = CASE WHEN s.percent IS NULL AND s.message IS NULL THEN q.progress_at ELSE now() END,
            checkpoint = coalesce(s.checkpoint::json, q.checkpoint)
        FROM free s
        WHERE q.job_id = s.job_id
        RETURNING q.job_id, q.lease_token
    )
    SELECT s.job_id, n.job_id IS NOT NULL, q.cancel_requested_at IS NOT NULL
    FROM said s
    LEFT JOIN punchcard.queue q ON q.job_id = s.job_id AND q.lease_token = s.lease_token
    LEFT JOIN noted n ON n.job_id = s.job_id AND n.lease_token = s.lease_token
    WHERE n.job_id IS NOT NULL OR q.cancel_requested_at IS NOT NULL
$$;

-- What somebody outside says of the run p_lease_token that waits for them, or whose worker has yet to say that it does. With
-- `progress` it goes on; `complete`, `retry` (after p_delay seconds, failed if that was the last attempt), `fail` and `reject`
-- end it, once. p_used: as in `settle`. Answers how the job stands then, and whether it is to be canceled.
-- Raises PT404 not_found · PT409 callback_used (the job is final), callback_expired (another run, or its time is up).
CREATE FUNCTION punchcard.call_back(
    p_job_id uuid, p_lease_token bigint, p_verdict text, p_delay double precision DEFAULT 0, p_output text DEFAULT NULL,
    p_code text DEFAULT NULL, p_message text DEFAULT NULL, p_used bigint DEFAULT NULL, p_percent smallint DEFAULT NULL,
    OUT status text, OUT cancel_requested boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job punchcard.queue;
    verdict text := p_verdict;
    error text;
BEGIN
    IF p_verdict = 'progress' THEN
        SELECT * INTO job FROM punchcard.queue q WHERE q.job_id = p_job_id FOR NO KEY UPDATE;
    ELSE
        job := punchcard.lock_job(p_job_id, NULL);
    END IF;
    IF job.job_id IS NULL THEN
        IF EXISTS (SELECT FROM punchcard.outcomes o WHERE o.job_id = p_job_id) THEN
            RAISE EXCEPTION 'callback_used' USING ERRCODE = 'PT409', DETAIL = 'The job is final already.';
        END IF;
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF job.lease_token <> p_lease_token
        OR (coalesce(job.lease_expires_at, job.waiting_until) > clock_timestamp()) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'callback_expired' USING ERRCODE = 'PT409', DETAIL = 'The job does not wait for this call any more.';
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
    FROM punchcard.settle(ARRAY[p_job_id], ARRAY[p_lease_token], ARRAY[verdict], ARRAY[p_delay], ARRAY[p_output], ARRAY[error],
                          ARRAY[p_used], p_rescue => true) s;
END $$;

-- The job that p_job_id is to be retried as another try of: failed or canceled, of this account, not retried yet. Locks its
-- outcome, so that of two who retry it one waits, holding nothing.
-- Raises PT404 not_found · PT409 not_retryable, already_retried.
CREATE FUNCTION punchcard.check_retry_of(p_job_id uuid, p_account_id uuid) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended punchcard.outcomes;
    retried uuid;
BEGIN
    -- The way that a job goes: one that ends meanwhile is in the second place.
    IF EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = p_job_id AND q.account_id = p_account_id) THEN
        RAISE EXCEPTION 'not_retryable' USING ERRCODE = 'PT409', DETAIL = 'The job is not final yet.';
    END IF;
    SELECT * INTO ended FROM punchcard.outcomes o
    WHERE o.job_id = p_job_id AND o.account_id = p_account_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    IF ended.status = 'succeeded' THEN
        RAISE EXCEPTION 'not_retryable' USING ERRCODE = 'PT409', DETAIL = 'The job succeeded.';
    END IF;
    SELECT j.id INTO retried FROM punchcard.jobs j WHERE j.retry_of = p_job_id;
    IF FOUND THEN
        RAISE EXCEPTION 'already_retried' USING ERRCODE = 'PT409',
            DETAIL = json_build_object('detail', 'The job has been retried already.', 'retried_as', retried)::text;
    END IF;
    RETURN p_job_id;
END $$;

-- Buys a failed or canceled job once more, at its kind's price of now: a new job with an id and a hold of its own. The old
-- one stays as it is. Refuses as `check_retry_of` and `enqueue` do.
CREATE FUNCTION punchcard.retry(
    p_job_id uuid, p_account_id uuid DEFAULT NULL, p_run_at timestamptz DEFAULT NULL,
    OUT job_id uuid, OUT account_id uuid, OUT wake_after double precision)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old punchcard.jobs;
    bought record;
BEGIN
    -- Whose it is, by a row that names the job by its id alone.
    SELECT coalesce((SELECT o.account_id FROM punchcard.outcomes o WHERE o.job_id = p_job_id),
                    (SELECT q.account_id FROM punchcard.queue q WHERE q.job_id = p_job_id)) INTO account_id;
    IF account_id IS NULL OR account_id <> coalesce(p_account_id, account_id) THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    -- The account before the job that ended, as in `lock_job`.
    PERFORM FROM punchcard.accounts a WHERE a.id = retry.account_id AND a.share = 0 AND a.spread = 1
    FOR NO KEY UPDATE;
    SELECT * INTO STRICT old FROM punchcard.jobs j WHERE j.account_id = retry.account_id AND j.id = p_job_id;
    SELECT * INTO bought FROM punchcard.enqueue(account_id, old.kind, old.input, NULL, old.priority, p_run_at,
        jsonb_strip_nulls(jsonb_build_object(
            'retry_of', p_job_id, 'metadata', old.metadata, 'tags', to_jsonb(old.tags), 'webhook', old.webhook,
            'retry', nullif(coalesce(old.retry, '{}') || CASE WHEN old.max_attempts = (
                SELECT k.max_attempts FROM punchcard.kinds k WHERE k.name = old.kind) THEN '{}'
                ELSE jsonb_build_object('max_attempts', old.max_attempts) END, '{}'))));
    job_id := bought.job_id;
    wake_after := bought.wake_after;
END $$;

-- Retries failed jobs in bulk, oldest first: those of p_kind and, as wished, of one error code, one account, and finished
-- within a time; up to p_limit after (p_after_at, p_after_id), p_per_second of them a second, the first in p_delay seconds.
-- Answers each with the job that it is retried as, or the word of why it is not (such as insufficient_credits; account_busy:
-- somebody has held its account for a quarter of a second; refused_by_database: something else, such as a trigger of the team's,
-- which the server's log tells): it keeps no other from being retried. Walks past 10,000 failed jobs at most: if there may be more behind
-- them, a last row with neither says where the next call goes on.
CREATE FUNCTION punchcard.redrive(
    p_kind text, p_code text DEFAULT NULL, p_account_id uuid DEFAULT NULL, p_from timestamptz DEFAULT NULL,
    p_until timestamptz DEFAULT NULL, p_limit integer DEFAULT 1000, p_per_second double precision DEFAULT NULL,
    p_delay double precision DEFAULT 0, p_after_at timestamptz DEFAULT NULL, p_after_id uuid DEFAULT NULL)
    RETURNS TABLE (job_id uuid, finished_at timestamptz, retried_as uuid, refused text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    failed record;
    busy uuid;
    n integer := 0;
    last record;
    -- Without them, all: so each is a bound of the index, whatever is asked.
    after_at timestamptz := coalesce(p_after_at, '-infinity');
    after_id uuid := coalesce(p_after_id, '00000000-0000-0000-0000-000000000000');
    from_at timestamptz := coalesce(p_from, '-infinity');
    until_at timestamptz := coalesce(p_until, 'infinity');
BEGIN
    IF p_kind IS NULL OR p_limit NOT BETWEEN 1 AND 1000 OR p_per_second NOT BETWEEN 0.001 AND 10000 THEN
        RAISE EXCEPTION 'invalid_redrive' USING ERRCODE = 'PT422',
            DETAIL = 'A kind is required; the limit is from 1 to 1000, the rate from 0.001 to 10000 a second.';
    END IF;
    SELECT o.finished_at, o.job_id INTO last FROM punchcard.outcomes o
    WHERE o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
      AND (o.finished_at, o.job_id) > (after_at, after_id)
    ORDER BY o.finished_at, o.job_id OFFSET 9999 LIMIT 1;
    FOR failed IN
        -- Locked first, and none waited for: whoever retries one by hand goes first, and this holds no account meanwhile.
        -- Then account by account in their order, so that no two deadlock.
        WITH found AS MATERIALIZED (
            SELECT o.job_id, o.account_id, o.finished_at
            FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.account_id = o.account_id AND j.id = o.job_id
            WHERE o.status = 'failed' AND j.kind = p_kind
              -- What an old system failed at was bought there: it is bought anew if it is asked for by name alone.
              AND CASE WHEN p_code IS NULL THEN o.error ->> 'code' IS DISTINCT FROM 'imported'
                       ELSE o.error ->> 'code' = p_code END
              AND (p_account_id IS NULL OR o.account_id = p_account_id)
              AND o.finished_at >= from_at AND o.finished_at < until_at
              AND (o.finished_at, o.job_id) > (after_at, after_id)
              AND (o.finished_at, o.job_id) <= (coalesce(last.finished_at, 'infinity'),
                                                coalesce(last.job_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              AND NOT EXISTS (SELECT FROM punchcard.jobs r WHERE r.retry_of = o.job_id)
            ORDER BY o.finished_at, o.job_id
            LIMIT p_limit
            FOR UPDATE OF o SKIP LOCKED
        )
        SELECT f.job_id, f.account_id, f.finished_at,
               row_number() OVER (ORDER BY f.finished_at, f.job_id) - 1 AS place
        FROM found f ORDER BY f.account_id, f.finished_at, f.job_id
    LOOP
        job_id := failed.job_id;
        finished_at := failed.finished_at;
        retried_as := NULL;
        refused := NULL;
        IF failed.account_id IS DISTINCT FROM busy THEN
            BEGIN
                -- All shares in their order before any of them: the next job of this account may need another one.
                PERFORM FROM punchcard.accounts a WHERE a.id = failed.account_id ORDER BY a.share FOR NO KEY UPDATE;
                SET CONSTRAINTS ALL DEFERRED;
                SELECT r.job_id INTO retried_as FROM punchcard.retry(
                    failed.job_id, failed.account_id,
                    clock_timestamp() + make_interval(secs => p_delay + coalesce(failed.place / p_per_second, 0))) r;
                SET CONSTRAINTS ALL IMMEDIATE;
            EXCEPTION WHEN lock_not_available THEN
                retried_as := NULL;
                busy := failed.account_id;
            WHEN SQLSTATE 'PT402' OR SQLSTATE 'PT409' OR SQLSTATE 'PT422' OR SQLSTATE 'PT429' OR SQLSTATE 'PT503' THEN
                retried_as := NULL;
                refused := SQLERRM;
            -- These are not about this job: all of it is sent again, or later.
            WHEN transaction_rollback OR insufficient_resources THEN
                RAISE;
            WHEN OTHERS OR assert_failure THEN
                retried_as := NULL;
                RAISE LOG 'punchcard: job % cannot be retried: % %', failed.job_id, SQLSTATE, SQLERRM;
                refused := 'refused_by_database';
            END;
        END IF;
        IF failed.account_id = busy THEN
            refused := 'account_busy';
        END IF;
        n := n + 1;
        RETURN NEXT;
    END LOOP;
    IF n < p_limit AND last.job_id IS NOT NULL THEN
        RETURN QUERY SELECT last.job_id, last.finished_at, NULL::uuid, NULL::text;
    END IF;
END $$;

-- Refunds what was captured for a job, once, by the operator's decision. Answers the amount, and the job's account.
-- Raises PT404 not_found · PT409 nothing_captured, already_refunded.
CREATE FUNCTION punchcard.refund(p_job_id uuid, p_reason text DEFAULT NULL, OUT account_id uuid, OUT amount bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text := 'refund:' || p_job_id;
BEGIN
    -- The way that a job goes, as in `check_retry_of`.
    PERFORM FROM punchcard.queue q WHERE q.job_id = p_job_id;
    IF NOT FOUND THEN
        SELECT o.account_id, o.captured INTO account_id, amount FROM punchcard.outcomes o WHERE o.job_id = p_job_id;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is no such job.';
    END IF;
    IF coalesce(amount, 0) = 0 THEN
        RAISE EXCEPTION 'nothing_captured' USING ERRCODE = 'PT409', DETAIL = 'Nothing was captured for this job.';
    END IF;
    -- The account's lock first: whoever holds it sees every earlier refund.
    PERFORM FROM punchcard.accounts a WHERE a.id = account_id AND a.share = 0 FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = p_job_id AND l.kind = 'adjust') THEN
        RAISE EXCEPTION 'already_refunded' USING ERRCODE = 'PT409', DETAIL = 'This job has its one adjustment already.';
    END IF;
    -- A movement from outside may bear that key: it is no reason to keep what was captured.
    PERFORM FROM punchcard.ledger l
    WHERE l.account_id = refund.account_id AND l.idempotency_key = key AND l.job_id IS DISTINCT FROM p_job_id;
    IF FOUND THEN
        key := key || ':' || punchcard.uuid_v7();
    END IF;
    PERFORM punchcard.move_credits('adjust', account_id, amount, key, p_job_id, p_reason);
END $$;

SELECT punchcard.revoke_defaults();
