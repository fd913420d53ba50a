-- Buys up to 1,000 jobs of one account in one call, all or nothing: p_jobs is an array, of up to 5 MiB, of
-- objects with `kind` and, as wished, `input`, `priority`, `run_at`, `retry`, `metadata`, `tags`, `webhook`.
-- One hold for each. The key names the whole batch. Answers the jobs in their order. Refuses as `enqueue`
-- does, and says which job, but for a bad input.
CREATE OR REPLACE FUNCTION punchcard.enqueue_batch(p_account_id uuid, p_jobs json, p_key text DEFAULT NULL)
    RETURNS TABLE (id uuid, kind text, status text, price bigint, replayed boolean,
                   wake_after double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
#variable_conflict use_column
DECLARE
    hash uuid;
    bought punchcard.idempotency_keys;
    wanted record;
    options record;
    ids uuid[];
    balance record;
    batch uuid;
BEGIN
    IF p_account_id IS NULL OR p_jobs IS NULL OR octet_length(p_jobs::text) > 5242880
        OR json_typeof(p_jobs) <> 'array' OR json_array_length(p_jobs) NOT BETWEEN 1 AND 1000
    THEN
        RAISE EXCEPTION 'invalid_batch' USING ERRCODE = 'PT422',
            DETAIL = 'A batch is an array of 1 to 1000 jobs, of up to 5 MiB in all.';
    END IF;
    IF p_key IS NOT NULL THEN
        -- Before anything else is looked at: what was bought stays bought, whatever has become of its kind.
        SELECT * INTO bought FROM punchcard.idempotency_keys k
        WHERE k.account_id = p_account_id AND k.key = punchcard.key_digest(p_key);
        IF FOUND THEN
            hash := punchcard.request_hash(p_key, 'batch', punchcard.fingerprints(p_jobs));
            RETURN QUERY SELECT * FROM punchcard.replay_batch(bought, hash);
            RETURN;
        END IF;
    END IF;

    SELECT * INTO wanted FROM punchcard.read_batch(p_jobs);
    IF coalesce(wanted.unknown_kind, wanted.invalid_priority, wanted.invalid_run_at, wanted.invalid_input)
        IS NOT NULL
    THEN
        PERFORM punchcard.refuse_batch(wanted.unknown_kind, wanted.invalid_priority, wanted.max_priority,
                                       wanted.invalid_run_at, wanted.inputs);
    END IF;
    PERFORM punchcard.look_first(p_account_id, wanted.total, cardinality(wanted.kinds), wanted.total_bytes,
                                 p_key);
    IF p_key IS NOT NULL THEN
        hash := punchcard.request_hash(p_key, 'batch', punchcard.fingerprints(p_jobs));
    END IF;
    SELECT * INTO options FROM punchcard.options_of_batch(p_jobs, wanted.attempts);
    SELECT array_agg(v.id ORDER BY v.id) INTO ids
    FROM (SELECT punchcard.uuid_v7() AS id FROM generate_series(1, cardinality(wanted.kinds))) v;

    IF p_key IS NOT NULL THEN
        batch := ids[1];
        -- A twin in flight is waited for here, before anything is held.
        INSERT INTO punchcard.idempotency_keys (account_id, key, request_hash, job_id, last_job_id)
        VALUES (p_account_id, punchcard.key_digest(p_key), hash, batch, ids[cardinality(ids)])
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO STRICT bought FROM punchcard.idempotency_keys k
            WHERE k.account_id = p_account_id AND k.key = punchcard.key_digest(p_key);
            RETURN QUERY SELECT * FROM punchcard.replay_batch(bought, hash);
            RETURN;
        END IF;
    END IF;

    balance := punchcard.hold_credits(p_account_id, wanted.total, cardinality(ids), wanted.total_bytes);
    IF options.labeled > 0 THEN
        PERFORM punchcard.label(p_account_id, l.id, ARRAY(SELECT jsonb_array_elements_text(l.tags)),
                                l.metadata)
        FROM unnest(ids, options.tags, options.metadata) AS l (id, tags, metadata);
    END IF;
    -- The account moved once; each job is a hold of its own, with its number and the balances after it.
    WITH job AS MATERIALIZED (
        SELECT w.*, sum(w.price) OVER (ORDER BY w.n) AS price_so_far
        FROM unnest(ids, wanted.kinds, wanted.inputs, wanted.bytes, wanted.priorities, wanted.run_ats,
                    wanted.prices, wanted.terms, options.attempts, options.retries, options.metadata,
                    options.tags, options.webhooks, wanted.lives)
            WITH ORDINALITY AS w (id, kind, input, bytes, priority, run_at, price, terms_id, max_attempts,
                                  retry, metadata, tags, webhook, life, n)
    ), bought AS (
        INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, scheduled_at,
                                    expires_at, terms_id, share, priority, max_attempts, kind, batch_id,
                                    retry, metadata, tags, webhook, input)
        SELECT p_account_id, w.id, w.price, balance.entry - cardinality(ids) + w.n,
               balance.available + wanted.total - w.price_so_far,
               balance.held - wanted.total + w.price_so_far, nullif(w.run_at, now()),
               w.run_at + w.life, w.terms_id, balance.share, w.priority, w.max_attempts, w.kind, batch,
               w.retry, w.metadata,
               CASE WHEN w.tags IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(w.tags)) END,
               w.webhook, w.input
        FROM job w
    )
    INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, bytes, priority,
                                 max_attempts, run_at, expires_at, webhook)
    SELECT w.id, p_account_id, balance.share, w.kind, w.price, w.terms_id, w.bytes, w.priority,
           w.max_attempts, w.run_at, w.run_at + w.life, w.webhook
    FROM job w;
    RETURN QUERY
    SELECT w.id, w.kind, 'queued', w.price, false, w.wake_after
    FROM unnest(ids, wanted.kinds, wanted.prices, wanted.wakes) AS w (id, kind, price, wake_after);
END $$;
