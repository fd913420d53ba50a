-- Buys a job: key, price, hold, job and its place in the queue in one call, all or nothing. The job's row is
-- the hold. Answers what the caller does not know; `replayed` when the key had bought the job before
-- (jobs_now has it as it is now); `wake_after`, in seconds, when a wake-up is wanted for it. A priority is at
-- most its kind's `max_priority`: a greater one is refused, but that of a retry, and 0, which is said for
-- none, are lowered to it. Refuses by raising:
--   PT402 insufficient_credits · PT403 account_closed
--   · PT422 unknown_kind, idempotency_mismatch, invalid_*, over_limit · PT429 too_many_*
CREATE OR REPLACE FUNCTION punchcard.enqueue(
    p_account_id uuid, p_kind text, p_input json DEFAULT '{}', p_key text DEFAULT NULL,
    p_priority integer DEFAULT 0, p_run_at timestamptz DEFAULT NULL, p_options jsonb DEFAULT NULL,
    OUT job_id uuid, OUT price bigint, OUT max_attempts smallint, OUT run_at timestamptz,
    OUT created_at timestamptz, OUT expires_at timestamptz, OUT replayed boolean,
    OUT wake_after double precision, OUT priority smallint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    offer record;
    hash uuid;
    known record;
    share smallint;            -- of the account,
    available_after bigint;    -- and its balances once the hold is in,
    held_after bigint;
    entry bigint;              -- under this number
    attempts smallint;
    retry jsonb;
    metadata jsonb;
    tags text[];
    webhook jsonb;
    retry_of uuid;
    bytes integer := octet_length(p_input::text);
BEGIN
    created_at := now();
    run_at := greatest(p_run_at, created_at);
    IF p_account_id IS NULL OR p_kind IS NULL OR p_input IS NULL
        OR p_priority IS NULL OR p_priority NOT BETWEEN -10 AND 10
        OR run_at > created_at + interval '720 hours'
    THEN
        PERFORM punchcard.refuse_request(p_account_id, p_kind, p_input, p_priority);
    END IF;
    IF bytes > 65536 OR position(E'\\u0000' IN p_input::text) > 0 THEN
        PERFORM punchcard.check_input(p_input);
    END IF;

    -- What was bought stays bought, whatever has become of kind and credits; else the cheap refusals come
    -- before the hash.
    IF p_key IS NOT NULL THEN
        SELECT k.job_id, k.request_hash INTO known FROM punchcard.idempotency_keys k
        WHERE k.account_id = p_account_id AND k.key = punchcard.key_digest(p_key);
        replayed := FOUND;
    END IF;
    IF replayed IS NOT TRUE THEN
        -- Whose account is not spread, and not limited (for most, nobody is), needs no more than the update
        -- below.
        SELECT k.price, k.max_priority, k.max_attempts, k.life_seconds, k.dispatch, k.terms_id,
               a.spread = 1 AND NOT EXISTS (SELECT FROM punchcard.limits) AS plain
        INTO offer
        FROM punchcard.kinds k LEFT JOIN punchcard.accounts a ON a.id = p_account_id AND a.share = 0
        WHERE k.name = p_kind AND k.retired_at IS NULL;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'unknown_kind' USING ERRCODE = 'PT422', DETAIL = 'No such kind is offered.';
        END IF;
        price := offer.price;
        -- What is short costs less than the look.
        IF bytes + coalesce(pg_column_size(p_options), 0) > 4096 THEN
            PERFORM punchcard.look_first(p_account_id, price, 1, bytes, p_key);
        END IF;
        IF p_options IS NOT NULL THEN
            SELECT * INTO attempts, retry, metadata, tags, webhook, retry_of
            FROM punchcard.check_options(p_options, offer.max_attempts);
        END IF;
        priority := least(p_priority, offer.max_priority);
        IF priority < p_priority AND p_priority <> 0 AND retry_of IS NULL THEN
            RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422',
                DETAIL = format('A priority of this kind is from -10 to %s.', offer.max_priority);
        END IF;
    ELSIF p_options IS NOT NULL THEN
        -- Their text is hashed, and is as long as they are only if they are what they should be.
        PERFORM punchcard.check_options(p_options - 'retry_of', 25);
    END IF;
    IF p_key IS NOT NULL THEN
        hash := punchcard.request_hash(
            p_key, concat_ws(E'\n', p_kind, p_priority, extract(epoch FROM p_run_at), p_options), p_input);
        IF NOT replayed THEN
            job_id := punchcard.uuid_v7();
            -- A twin in flight with the same key is waited for here, before anything is held.
            INSERT INTO punchcard.idempotency_keys (account_id, key, request_hash, job_id)
            VALUES (p_account_id, punchcard.key_digest(p_key), hash, job_id)
            ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                replayed := true;
                SELECT k.job_id, k.request_hash INTO STRICT known FROM punchcard.idempotency_keys k
                WHERE k.account_id = p_account_id AND k.key = punchcard.key_digest(p_key);
            END IF;
        END IF;
    END IF;

    IF replayed THEN
        SELECT r.job_id, r.price, r.max_attempts, r.run_at, r.created_at, r.expires_at, r.priority
        INTO job_id, price, max_attempts, run_at, created_at, expires_at, priority
        FROM punchcard.replay_job(p_account_id, known.job_id, known.request_hash, hash) r;
        RETURN;
    END IF;

    replayed := false;
    IF retry_of IS NOT NULL THEN
        job_id := punchcard.check_retry_of(retry_of, p_account_id, job_id);
    END IF;
    max_attempts := coalesce(attempts, offer.max_attempts);
    expires_at := run_at + make_interval(secs => offer.life_seconds);
    IF offer.dispatch = 'sqs' THEN
        wake_after := extract(epoch FROM run_at - created_at);
    END IF;
    IF offer.plain THEN
        UPDATE punchcard.accounts a
        SET available = a.available - offer.price, held = a.held + offer.price, entries = a.entries + 1,
            unfinished_jobs = a.unfinished_jobs + 1, unfinished_bytes = a.unfinished_bytes + bytes
        WHERE a.id = p_account_id AND a.share = 0 AND a.available >= offer.price AND a.spread > 0
        RETURNING a.share, a.available, a.held, a.entries INTO share, available_after, held_after, entry;
    END IF;
    IF entry IS NULL THEN
        SELECT h.share, h.available, h.held, h.entry INTO share, available_after, held_after, entry
        FROM punchcard.hold_credits(p_account_id, price, 1, bytes) h;
    END IF;
    -- Made while the account is held: in the order of its entries.
    job_id := coalesce(job_id, punchcard.uuid_v7());
    WITH job AS (
        INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, scheduled_at,
                                    expires_at, terms_id, share, priority, max_attempts, kind, retry_of,
                                    retry, metadata, tags, webhook, input)
        VALUES (p_account_id, job_id, offer.price, entry, available_after, held_after,
                nullif(run_at, created_at), expires_at, offer.terms_id, share, priority, max_attempts, p_kind,
                retry_of, retry, metadata, tags, webhook, p_input)
    )
    INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, bytes, priority,
                                 max_attempts, run_at, expires_at, webhook)
    VALUES (job_id, p_account_id, share, p_kind, offer.price, offer.terms_id, bytes, priority, max_attempts,
            run_at, expires_at, webhook);
    IF metadata IS NOT NULL OR tags IS NOT NULL THEN
        PERFORM punchcard.label(p_account_id, job_id, tags, metadata);
    END IF;
END $$;
