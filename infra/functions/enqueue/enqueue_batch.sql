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

    -- The jobs as parallel arrays: read once and sorted once, used by each statement below.
    SELECT array_agg(w.kind) AS kinds, array_agg(w.input) AS inputs, array_agg(w.bytes) AS bytes,
           array_agg(least(coalesce(w.priority, 0), w.max_priority)) AS priorities,
           array_agg(greatest(w.run_at, now())) AS run_ats, array_agg(w.price) AS prices,
           array_agg(w.terms_id) AS terms, array_agg(w.max_attempts) AS attempts,
           array_agg(make_interval(secs => w.life_seconds)) AS lives,
           array_agg(CASE w.dispatch WHEN 'sqs'
                          THEN extract(epoch FROM greatest(w.run_at, now()) - now()) END)
               ::double precision[] AS wakes,
           sum(w.price)::bigint AS total, sum(w.bytes)::bigint AS total_bytes,
           min(w.n) FILTER (WHERE w.name IS NULL) AS unknown_kind,
           min(w.n) FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority)
               AS invalid_priority,
           (array_agg(w.max_priority)
                FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority))[1]
               AS max_priority,
           min(w.n) FILTER (WHERE w.run_at > now() + interval '720 hours') AS invalid_run_at,
           min(w.n) FILTER (WHERE w.bytes > 65536 OR position(E'\\u0000' IN w.input::text) > 0)
               AS invalid_input
    INTO wanted
    -- To json_to_recordset an input that is null is none; where there may be one, the jobs are read again.
    FROM (SELECT r.kind, i.input, octet_length(i.input::text) AS bytes, r.priority, r.run_at, r.n, k.*
          FROM ROWS FROM (json_to_recordset(p_jobs) AS (kind text, input json, priority integer,
                                                        run_at timestamptz),
                          json_array_elements(CASE WHEN position('null' IN p_jobs::text) > 0 THEN p_jobs END))
               WITH ORDINALITY AS r (kind, input, priority, run_at, job, n)
          CROSS JOIN LATERAL (SELECT coalesce(r.input, r.job -> 'input', '{}') AS input) i
          LEFT JOIN punchcard.kinds k ON k.name = r.kind AND k.retired_at IS NULL
          ORDER BY r.n) w;
    IF wanted.unknown_kind IS NOT NULL THEN
        RAISE EXCEPTION 'unknown_kind' USING ERRCODE = 'PT422',
            DETAIL = format('Job %s of the batch: no such kind is offered.', wanted.unknown_kind);
    ELSIF wanted.invalid_priority IS NOT NULL THEN
        RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422',
            DETAIL = format('Job %s of the batch: a priority of this kind is from -10 to %s.',
                            wanted.invalid_priority, wanted.max_priority);
    ELSIF wanted.invalid_run_at IS NOT NULL THEN
        RAISE EXCEPTION 'invalid_run_at' USING ERRCODE = 'PT422',
            DETAIL = format('Job %s of the batch: a job waits for 30 days at most.', wanted.invalid_run_at);
    ELSIF wanted.invalid_input IS NOT NULL THEN
        PERFORM punchcard.check_input(w) FROM unnest(wanted.inputs) w;
    END IF;
    PERFORM punchcard.look_first(p_account_id, wanted.total, cardinality(wanted.kinds), wanted.total_bytes,
                                 p_key);
    IF p_key IS NOT NULL THEN
        hash := punchcard.request_hash(p_key, 'batch', punchcard.fingerprints(p_jobs));
    END IF;
    -- Few batches ask for more than their kinds' policies: the others are not read for it.
    SELECT array_agg(coalesce(o.max_attempts, w.attempts) ORDER BY w.n) AS attempts,
           array_agg(o.retry ORDER BY w.n) AS retries, array_agg(o.metadata ORDER BY w.n) AS metadata,
           array_agg(to_jsonb(o.tags) ORDER BY w.n) AS tags, array_agg(o.webhook ORDER BY w.n) AS webhooks,
           count(*) FILTER (WHERE o.metadata IS NOT NULL OR o.tags IS NOT NULL) AS labeled
    INTO options
    -- As json: jsonb needs many times as much room, and is made of them one by one, and of none that is too
    -- long.
    FROM ROWS FROM (unnest(wanted.attempts),
                    json_to_recordset(p_jobs) AS (retry json, metadata json, tags json, webhook json))
         WITH ORDINALITY AS w (attempts, retry, metadata, tags, webhook, n)
    LEFT JOIN LATERAL punchcard.check_options(
        CASE WHEN octet_length(concat(w.retry, w.metadata, w.tags, w.webhook)) > 131072 THEN '[]'
             ELSE jsonb_build_object('retry', w.retry, 'metadata', w.metadata, 'tags', w.tags,
                                     'webhook', w.webhook) END,
        w.attempts) o
        ON w.retry IS NOT NULL OR w.metadata IS NOT NULL OR w.tags IS NOT NULL OR w.webhook IS NOT NULL
    WHERE p_jobs::text ~ '"(retry|metadata|tags|webhook)"';
    IF options.attempts IS NULL THEN
        options.attempts := wanted.attempts;
    END IF;
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
