-- The engine: buying, claiming and settling, each one call. A function's plans are kept by the backend, also behind
-- a pooler (ADR 0004); so that they do not depend on how small the tables were when they were made, the set-based
-- ones are pinned to nested loops over indexes, and none waits for a JIT compiler.

-- Lets so many jobs more pass the account's caps, or refuses: PT429 too_many_jobs, too_many_bytes, too_many_enqueues; PT422
-- over_cap if they never could. Share 0 is locked first, so that no two buyers pass where one may.
-- Enqueues are paced as by the generic cell rate algorithm (ITU-T I.371): a minute's worth at once, then one for each
-- part of a minute that has passed. p_look only looks: it locks nothing, and whoever passes it may still be refused.
CREATE FUNCTION punchcard.pass_caps(p_account_id uuid, p_jobs integer, p_bytes bigint, p_look boolean DEFAULT false)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    caps punchcard.caps;
    until timestamptz;
    jobs bigint;
    bytes bigint;
    refused text;
    cap bigint;
    seconds integer := 60;
BEGIN
    SELECT * INTO caps FROM punchcard.caps c
    WHERE c.account_id IN (p_account_id, '00000000-0000-0000-0000-000000000000') ORDER BY c.account_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_jobs > 1 AND p_jobs > least(caps.unfinished_jobs, caps.enqueues_per_minute) OR p_bytes > caps.unfinished_bytes THEN
        RAISE EXCEPTION 'over_cap' USING ERRCODE = 'PT422', DETAIL = format(
            'An account may have %s unfinished jobs with %s bytes of input, and enqueue %s a minute.',
            coalesce(caps.unfinished_jobs::text, 'any number of'), coalesce(caps.unfinished_bytes::text, 'any number of'),
            coalesce(caps.enqueues_per_minute::text, 'any number'));
    END IF;
    IF p_look THEN
        SELECT greatest(a.paced_until, clock_timestamp()) + interval '1 minute' / caps.enqueues_per_minute * p_jobs INTO until
        FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0;
    ELSE
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
        SELECT greatest(a.paced_until, clock_timestamp()) + interval '1 minute' / caps.enqueues_per_minute * p_jobs INTO until
        FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
    END IF;
    SELECT sum(a.unfinished_jobs), sum(a.unfinished_bytes) INTO jobs, bytes
    FROM punchcard.accounts a WHERE a.id = p_account_id;
    IF jobs + p_jobs > caps.unfinished_jobs THEN
        refused := 'too_many_jobs';
        cap := caps.unfinished_jobs;
    ELSIF bytes + p_bytes > caps.unfinished_bytes THEN
        refused := 'too_many_bytes';
        cap := caps.unfinished_bytes;
    ELSIF until > clock_timestamp() + interval '1 minute' THEN
        refused := 'too_many_enqueues';
        cap := caps.enqueues_per_minute;
        seconds := greatest(ceil(extract(epoch FROM until - clock_timestamp() - interval '1 minute')), 1);
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused USING ERRCODE = 'PT429', DETAIL = json_build_object('detail',
            CASE refused WHEN 'too_many_jobs' THEN 'The account has as many unfinished jobs as it may.'
                         WHEN 'too_many_bytes' THEN 'The inputs of the account''s unfinished jobs have as many bytes as they may.'
                         ELSE 'The account has enqueued as many jobs in a minute as it may.' END,
            'cap', cap, 'retry_after', seconds)::text;
    END IF;
    IF NOT p_look THEN
        UPDATE punchcard.accounts a SET paced_until = until WHERE a.id = p_account_id AND a.share = 0 AND until IS NOT NULL;
    END IF;
END $$;

-- Refuses, as `hold_credits` would, whoever is over their caps or plainly lacks the credits, by a look that locks nothing:
-- before what is dear to take in is read, hashed or written. Whoever passes it may still be refused there.
CREATE FUNCTION punchcard.look_first(
    p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_key text) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    total numeric;
BEGIN
    PERFORM punchcard.pass_caps(p_account_id, p_jobs, p_bytes, p_look => true);
    SELECT coalesce(sum(a.available), 0) INTO total FROM punchcard.accounts a WHERE a.id = p_account_id;
    -- One's own first: what is given back to the source meanwhile counts twice rather than not at all.
    IF total < p_amount AND EXISTS (SELECT FROM punchcard.credit_source) THEN
        total := total + coalesce(punchcard.drawable(punchcard.source_balance(p_account_id, false)), 0);
    END IF;
    IF total < p_amount THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', p_amount, 'available', total)::text;
    END IF;
EXCEPTION WHEN SQLSTATE 'PT402' OR SQLSTATE 'PT422' OR SQLSTATE 'PT429' THEN
    -- A twin may have been bought with this key since it was looked for: then this is its replay.
    IF p_key IS NULL OR NOT EXISTS (
        SELECT FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.idempotency_key = p_key)
    THEN
        RAISE;
    END IF;
END $$;

-- Holds credits for so many jobs: of the share that this backend uses, else of all shares dealt anew, else with what is
-- missing drawn from the team's own credits, if there is such a source (0007_credit_source). Within the account's caps,
-- unless these were taken in elsewhere.
-- Raises PT402 insufficient_credits, and as `pass_caps`. The caller writes the ledger entries.
CREATE FUNCTION punchcard.hold_credits(
    p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_capped boolean DEFAULT true,
    OUT share smallint, OUT available bigint, OUT held bigint)
    LANGUAGE plpgsql AS $$
DECLARE
    total bigint;
    shares integer;
    capped boolean;
BEGIN
    -- Whether anybody is capped is asked along with it: for most, nobody is.
    SELECT f.spread, EXISTS (SELECT FROM punchcard.caps) INTO shares, capped
    FROM punchcard.accounts f WHERE f.id = p_account_id AND f.share = 0;
    IF p_capped AND capped IS NOT FALSE THEN
        PERFORM punchcard.pass_caps(p_account_id, p_jobs, p_bytes);
    END IF;
    IF shares IS NULL THEN
        IF p_amount = 0 THEN
            INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
        END IF;
        -- Its first grant may have been on its way then, and be here now: `pass_caps` waits for it, and so
        -- did this.
        SELECT f.spread INTO shares FROM punchcard.accounts f WHERE f.id = p_account_id AND f.share = 0;
        shares := coalesce(shares, 1);
    END IF;
    share := pg_backend_pid() % shares;
    IF shares = 1 THEN
        UPDATE punchcard.accounts a
        SET available = a.available - p_amount, held = a.held + p_amount,
            unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes
        WHERE a.id = p_account_id AND a.share = 0 AND a.available >= p_amount
        RETURNING a.available, a.held INTO available, held;
        IF FOUND THEN
            RETURN;
        END IF;
    ELSE
        -- An UPDATE that waited for a row and then found too little on it keeps the row's lock, out of the order in which
        -- dealing takes them: rolling it back lets go of it.
        BEGIN
            UPDATE punchcard.accounts a
            SET available = a.available - p_amount, held = a.held + p_amount,
                unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes
            WHERE a.id = p_account_id AND a.share = hold_credits.share AND a.available >= p_amount
            RETURNING a.available, a.held INTO STRICT available, held;
            RETURN;
        EXCEPTION WHEN no_data_found THEN
            NULL;
        END;
    END IF;
    -- A look without a lock first: whoever has no credits holds nobody up.
    SELECT sum(a.available) INTO total FROM punchcard.accounts a WHERE a.id = p_account_id;
    IF total >= p_amount THEN
        total := punchcard.deal_credits(p_account_id, shares, share, p_amount, true);
    END IF;
    -- Also if others took it between that look and the lock: nobody is told that there is too little before
    -- the source is asked.
    IF coalesce(total, 0) < p_amount AND EXISTS (SELECT FROM punchcard.credit_source) THEN
        total := punchcard.draw_credits(p_account_id, p_amount);
        IF total >= p_amount THEN
            total := punchcard.deal_credits(p_account_id, shares, share, p_amount);
        END IF;
    END IF;
    IF total IS NULL OR total < p_amount THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', p_amount, 'available', coalesce(total, 0))::text;
    END IF;
    UPDATE punchcard.accounts a
    SET available = a.available - p_amount, held = a.held + p_amount,
        unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes
    WHERE a.id = p_account_id AND a.share = hold_credits.share
    RETURNING a.available, a.held INTO STRICT available, held;
END $$;

-- Refuses what no worker could read, or should.
CREATE FUNCTION punchcard.check_input(p_input json) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(p_input::text) > 65536 THEN
        RAISE EXCEPTION 'input_too_large' USING ERRCODE = 'PT422', DETAIL = 'An input has at most 65536 bytes.';
    END IF;
    -- `json` lets a NUL escape pass that no other JSON reader downstream would: the cast refuses it.
    IF position(E'\\u0000' IN p_input::text) > 0 THEN
        PERFORM p_input::jsonb;
    END IF;
EXCEPTION WHEN untranslatable_character THEN
    RAISE EXCEPTION 'nul_character' USING ERRCODE = 'PT422', DETAIL = E'An input cannot contain \\u0000.';
END $$;

-- A JSON value as text that is the same whatever its spacing and the order of its keys, and not much longer than it was sent:
-- as jsonb writes it, but for numbers with an exponent, of which jsonb would write every digit (1e308 has 309). These count as
-- they are written, so that 1e2 is neither 100 nor 1E2; other numbers count digit for digit too, so that 1.0 is not 1.00.
CREATE FUNCTION punchcard.canonical(p_value json) RETURNS text
    LANGUAGE sql AS $$
    -- As strings that nobody sends by chance. Within a string the quotation marks end it, and what comes then is no JSON.
    SELECT regexp_replace(p_value::text, '(^|[[:space:][,:])([-0-9.]+[eE][-+0-9]+)', E'\\1"\\u0001\\2"', 'g')::jsonb::text
$$;

-- What a key was used for, as a hash; refuses what is no key. What jsonb cannot hold (a lone surrogate, more digits than
-- `numeric` has), or what looks like a number with an exponent within a string, makes an input count as it is written.
CREATE FUNCTION punchcard.request_hash(p_key text, p_what text, p_input json) RETURNS bytea
    LANGUAGE plpgsql AS $$
BEGIN
    IF p_key !~ E'^[\\x20-\\x7e]{1,128}$' THEN
        RAISE EXCEPTION 'invalid_idempotency_key' USING ERRCODE = 'PT422',
            DETAIL = 'A key has 1 to 128 printable ASCII characters.';
    END IF;
    RETURN sha256(convert_to(p_what || E'\n' || punchcard.canonical(p_input), 'UTF8'));
EXCEPTION WHEN data_exception THEN
    RETURN sha256(convert_to(p_what || E'\n' || p_input::text, 'UTF8'));
END $$;

-- A batch as `request_hash` takes it: the hash of each of its jobs, so that there is but one of them as jsonb at a time. One that
-- is longer than any job that can be bought counts as it is written.
CREATE FUNCTION punchcard.fingerprints(p_jobs json) RETURNS json
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT json_agg(encode(sha256(convert_to(
                CASE WHEN octet_length(j.job::text) > 200000 THEN j.job::text ELSE punchcard.canonical(j.job) END, 'UTF8')), 'hex')
                ORDER BY j.n)
            FROM json_array_elements(p_jobs) WITH ORDINALITY AS j (job, n));
EXCEPTION WHEN data_exception THEN
    RETURN to_json(encode(sha256(convert_to(p_jobs::text, 'UTF8')), 'hex'));
END $$;

-- Whether a JSON value is a whole number within bounds, written as one: workers do not read 10.0.
CREATE FUNCTION punchcard.is_whole(p_value jsonb, p_least numeric, p_most numeric) RETURNS boolean
    LANGUAGE sql AS $$
    SELECT CASE WHEN p_value::text ~ '^[0-9]+$' THEN p_value::numeric BETWEEN p_least AND p_most ELSE false END
$$;

-- Vets a webhook, {url, events}: events are those that end a job unless it says otherwise. Where it may point to is vetted by
-- whoever sends, address by address.
CREATE FUNCTION punchcard.check_webhook(p_webhook jsonb) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    events jsonb := coalesce(nullif(p_webhook -> 'events', 'null'), '["job.succeeded", "job.failed", "job.canceled"]');
BEGIN
    IF jsonb_typeof(p_webhook) <> 'object' OR p_webhook - ARRAY['url', 'events'] <> '{}'
        OR (p_webhook ->> 'url' ~ '^https?://' AND length(p_webhook ->> 'url') <= 2000) IS NOT TRUE
        OR jsonb_typeof(p_webhook -> 'url') <> 'string' OR jsonb_typeof(events) <> 'array' OR jsonb_array_length(events) = 0
        OR NOT events <@ '["job.running", "job.succeeded", "job.failed", "job.canceled"]'
    THEN
        RAISE EXCEPTION 'invalid_webhook' USING ERRCODE = 'PT422', DETAIL =
            'A webhook has a url (https, up to 2000 characters) and, as wished, events: job.running, job.succeeded, job.failed, job.canceled.';
    END IF;
    RETURN jsonb_build_object('url', p_webhook -> 'url', 'events', events);
END $$;

-- Vets what a job asks for beside its kind's policy: an object with, as wished, `retry`, `metadata`, `tags`, `webhook`, `retry_of`.
-- Answers NULL for what it does not ask for.
CREATE FUNCTION punchcard.check_options(
    p_options jsonb, p_account_id uuid, p_max_attempts integer,
    OUT max_attempts smallint, OUT retry jsonb, OUT metadata jsonb, OUT tags text[], OUT webhook jsonb, OUT retry_of uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    known text[] := ARRAY['max_attempts', 'backoff', 'backoff_seconds', 'backoff_max_seconds', 'backoff_delays', 'jitter'];
BEGIN
    IF pg_column_size(p_options) > 65536 OR jsonb_typeof(p_options) <> 'object'
        OR p_options - ARRAY['retry', 'metadata', 'tags', 'webhook', 'retry_of'] <> '{}'
    THEN
        RAISE EXCEPTION 'invalid_options' USING ERRCODE = 'PT422',
            DETAIL = 'Options are an object of up to 64 KiB with retry, metadata, tags, webhook and retry_of.';
    END IF;
    retry := nullif(p_options -> 'retry', 'null');
    metadata := nullif(p_options -> 'metadata', 'null');
    IF coalesce(p_options -> 'retry_of', 'null') <> 'null' THEN
        retry_of := punchcard.check_retry_of((p_options ->> 'retry_of')::uuid, p_account_id);
        -- What was within the bounds then is within those of now.
        IF (retry ->> 'max_attempts')::integer > p_max_attempts THEN
            retry := jsonb_set(retry, '{max_attempts}', to_jsonb(p_max_attempts));
        END IF;
    END IF;

    IF retry IS NOT NULL THEN
        IF jsonb_typeof(retry) <> 'object' OR retry - known <> '{}'
            OR (retry ? 'max_attempts' AND NOT punchcard.is_whole(retry -> 'max_attempts', 1, p_max_attempts))
            OR (retry ? 'backoff_seconds' AND NOT punchcard.is_whole(retry -> 'backoff_seconds', 1, 86400))
            OR (retry ? 'backoff_max_seconds' AND NOT punchcard.is_whole(retry -> 'backoff_max_seconds', 1, 86400))
            OR (retry ? 'backoff' AND retry ->> 'backoff' NOT IN ('exponential', 'linear', 'fixed'))
            OR (retry ? 'jitter' AND NOT CASE WHEN jsonb_typeof(retry -> 'jitter') = 'number'
                                              THEN (retry ->> 'jitter')::numeric BETWEEN 0 AND 1 ELSE false END)
            OR (retry ? 'backoff_delays') <> (coalesce(retry ->> 'backoff', '') = 'fixed')
            OR (retry ? 'backoff_delays' AND NOT CASE WHEN jsonb_typeof(retry -> 'backoff_delays') = 'array'
                THEN jsonb_array_length(retry -> 'backoff_delays') BETWEEN 1 AND 25
                    AND NOT EXISTS (SELECT FROM jsonb_array_elements(retry -> 'backoff_delays') d (delay)
                                    WHERE NOT punchcard.is_whole(d.delay, 0, 86400)) ELSE false END)
        THEN
            RAISE EXCEPTION 'invalid_retry' USING ERRCODE = 'PT422', DETAIL = format(
                'A retry has, as wished, max_attempts (1 to %s for this kind), backoff (exponential, linear, or fixed with '
                '1 to 25 backoff_delays), backoff_seconds and backoff_max_seconds (1 to 86400) and jitter (0 to 1).',
                p_max_attempts);
        END IF;
        max_attempts := retry -> 'max_attempts';
        retry := nullif(retry - 'max_attempts', '{}');
    END IF;

    IF metadata IS NOT NULL THEN
        IF jsonb_typeof(metadata) <> 'object'
            OR (SELECT count(*) > 16 OR NOT bool_and(m.key ~ '^[A-Za-z0-9_.-]{1,64}$' AND jsonb_typeof(m.value) = 'string'
                                                     AND length(m.value #>> '{}') <= 512)
                FROM jsonb_each(CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{}' END) m)
        THEN
            RAISE EXCEPTION 'invalid_metadata' USING ERRCODE = 'PT422', DETAIL =
                'Metadata are up to 16 strings of up to 512 characters, by names of up to 64 of A-Z a-z 0-9 _ . -';
        END IF;
        metadata := nullif(metadata, '{}');
    END IF;

    IF coalesce(p_options -> 'tags', 'null') <> 'null' THEN
        IF jsonb_typeof(p_options -> 'tags') = 'array' THEN
            -- In the order of their bytes, as the API sorts them too.
            SELECT array_agg(DISTINCT (t.tag #>> '{}') COLLATE "C") INTO tags FROM jsonb_array_elements(p_options -> 'tags') t (tag);
        END IF;
        IF jsonb_typeof(p_options -> 'tags') <> 'array' OR cardinality(tags) > 10
            OR EXISTS (SELECT FROM unnest(tags) t WHERE (t ~ '^[A-Za-z0-9_.:/@+-]{1,64}$') IS NOT TRUE)
            OR EXISTS (SELECT FROM jsonb_array_elements(p_options -> 'tags') t (tag) WHERE jsonb_typeof(t.tag) <> 'string')
        THEN
            RAISE EXCEPTION 'invalid_tags' USING ERRCODE = 'PT422', DETAIL =
                'Tags are up to 10 strings of up to 64 of A-Z a-z 0-9 _ . : / @ + -';
        END IF;
    END IF;

    IF coalesce(p_options -> 'webhook', 'null') <> 'null' THEN
        webhook := punchcard.check_webhook(p_options -> 'webhook');
    END IF;
END $$;

-- Enters what a caller finds their job by.
CREATE FUNCTION punchcard.label(p_account_id uuid, p_job_id uuid, p_tags text[], p_metadata jsonb) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO punchcard.labels (account_id, label, job_id)
    SELECT p_account_id, t, p_job_id FROM unnest(p_tags) t
    UNION ALL SELECT p_account_id, m.key || '=' || m.value, p_job_id FROM jsonb_each_text(p_metadata) m
$$;

-- Buys a job: key, price, hold, ledger entry, job and its place in the queue in one call, all or nothing.
-- Answers what the caller does not know; `replayed` when the key had bought the job before (jobs_now has it as it is
-- now); `wake_after`, in seconds, when a wake-up is wanted for it. A priority is at most its kind's `max_priority`: a greater one
-- is refused, but that of a retry, and 0, which is said for none, are lowered to it. Refuses by raising:
--   PT402 insufficient_credits · PT422 unknown_kind, idempotency_mismatch, invalid_*, over_cap · PT429 too_many_*
CREATE FUNCTION punchcard.enqueue(
    p_account_id uuid, p_kind text, p_input json DEFAULT '{}', p_key text DEFAULT NULL,
    p_priority integer DEFAULT 0, p_run_at timestamptz DEFAULT NULL, p_options jsonb DEFAULT NULL,
    OUT job_id uuid, OUT price bigint, OUT max_attempts smallint, OUT run_at timestamptz, OUT created_at timestamptz,
    OUT expires_at timestamptz, OUT replayed boolean, OUT wake_after double precision, OUT priority smallint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    offer punchcard.kinds;
    hash bytea;
    bought punchcard.jobs;
    balance record;
    attempts smallint;
    retry jsonb;
    metadata jsonb;
    tags text[];
    webhook jsonb;
    retry_of uuid;
    bytes integer := octet_length(p_input::text);
BEGIN
    IF p_account_id IS NULL OR p_kind IS NULL OR p_input IS NULL THEN
        RAISE EXCEPTION 'invalid_request' USING ERRCODE = 'PT422',
            DETAIL = 'An account, a kind and an input are required.';
    END IF;
    IF p_priority IS NULL OR p_priority NOT BETWEEN -10 AND 10 THEN
        RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422', DETAIL = 'A priority is from -10 to 10.';
    END IF;
    created_at := now();
    run_at := greatest(p_run_at, created_at);
    IF run_at > created_at + interval '720 hours' THEN
        RAISE EXCEPTION 'invalid_run_at' USING ERRCODE = 'PT422', DETAIL = 'A job waits for 30 days at most.';
    END IF;
    IF bytes > 65536 OR position(E'\\u0000' IN p_input::text) > 0 THEN
        PERFORM punchcard.check_input(p_input);
    END IF;

    -- What was bought stays bought, whatever has become of kind and credits; else the cheap refusals come before the hash.
    IF p_key IS NOT NULL THEN
        SELECT * INTO bought FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
        replayed := FOUND;
    END IF;
    IF replayed IS NOT TRUE THEN
        SELECT * INTO offer FROM punchcard.kinds k WHERE k.name = p_kind AND k.retired_at IS NULL;
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
            FROM punchcard.check_options(p_options, p_account_id, offer.max_attempts);
        END IF;
        priority := least(p_priority, offer.max_priority);
        IF priority < p_priority AND p_priority <> 0 AND retry_of IS NULL THEN
            RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422',
                DETAIL = format('A priority of this kind is from -10 to %s.', offer.max_priority);
        END IF;
    ELSIF p_options IS NOT NULL THEN
        -- Their text is hashed, and is as long as they are only if they are what they should be.
        PERFORM punchcard.check_options(p_options - 'retry_of', p_account_id, 25);
    END IF;
    IF p_key IS NOT NULL THEN
        hash := punchcard.request_hash(p_key, concat_ws(E'\n', p_kind, p_priority, extract(epoch FROM p_run_at),
                                                        p_options), p_input);
    END IF;

    IF replayed IS NOT TRUE THEN
        job_id := punchcard.uuid_v7();
        max_attempts := coalesce(attempts, offer.max_attempts);
        expires_at := run_at + make_interval(secs => offer.life_seconds);
        IF offer.dispatch = 'sqs' THEN
            wake_after := extract(epoch FROM run_at - created_at);
        END IF;
        -- A twin in flight with the same key is waited for here, by the unique index.
        INSERT INTO punchcard.jobs (account_id, id, kind, price, metered, on_cancel, on_input_error, priority, max_attempts,
                                    retry, scheduled_at, expires_at, idempotency_key, request_hash, retry_of, metadata, tags,
                                    webhook, input)
        VALUES (p_account_id, job_id, p_kind, price, offer.metered, offer.on_cancel, offer.on_input_error, priority,
                max_attempts, retry, run_at, expires_at, p_key, hash, retry_of, metadata, tags, webhook, p_input)
        ON CONFLICT (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
        replayed := NOT FOUND;
        IF replayed THEN
            SELECT * INTO STRICT bought FROM punchcard.jobs j
            WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
        END IF;
    END IF;

    IF replayed THEN
        IF bought.request_hash <> hash THEN
            RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
                DETAIL = 'This key was used for another request.';
        END IF;
        job_id := bought.id;
        price := bought.price;
        max_attempts := bought.max_attempts;
        run_at := bought.scheduled_at;
        created_at := bought.created_at;
        expires_at := bought.expires_at;
        priority := bought.priority;
        wake_after := NULL;
        RETURN;
    END IF;

    balance := punchcard.hold_credits(p_account_id, price, 1, bytes);
    IF price > 0 THEN
        INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after, job_id)
        VALUES (p_account_id, 'hold', price, balance.share, balance.available, balance.held, job_id);
    END IF;
    INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, metered, on_cancel, on_input_error, bytes, priority,
                                 max_attempts, max_crashes, run_at, expires_at, webhook)
    VALUES (job_id, p_account_id, balance.share, p_kind, price, offer.metered, offer.on_cancel, offer.on_input_error, bytes,
            priority, max_attempts, offer.max_crashes, run_at, expires_at, webhook);
    IF metadata IS NOT NULL OR tags IS NOT NULL THEN
        PERFORM punchcard.label(p_account_id, job_id, tags, metadata);
    END IF;
END $$;

-- The batch whose key p_first carries, as it is now, if the key was used for the same.
CREATE FUNCTION punchcard.replay_batch(p_first punchcard.jobs, p_hash bytea)
    RETURNS TABLE (id uuid, kind text, status text, price bigint, replayed boolean, wake_after double precision)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_first.request_hash <> p_hash THEN
        RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
            DETAIL = 'This key was used for another request.';
    END IF;
    RETURN QUERY
    SELECT n.id, n.kind, n.status, n.price, true, NULL::double precision FROM punchcard.jobs_now n
    WHERE n.account_id = p_first.account_id AND n.batch_id = p_first.batch_id ORDER BY n.id;
END $$;

-- Buys up to 1,000 jobs of one account in one call, all or nothing: p_jobs is an array, of up to 5 MiB, of objects with `kind`
-- and, as wished, `input`, `priority`, `run_at`, `retry`, `metadata`, `tags`, `webhook`. One hold for each. The key names the whole
-- batch.
-- Answers the jobs in their order. Refuses as `enqueue` does, and says which job, but for a bad input.
CREATE FUNCTION punchcard.enqueue_batch(p_account_id uuid, p_jobs json, p_key text DEFAULT NULL)
    RETURNS TABLE (id uuid, kind text, status text, price bigint, replayed boolean, wake_after double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    hash bytea;
    bought punchcard.jobs;
    wanted record;
    options record;
    ids uuid[];
    balance record;
    batch uuid;
BEGIN
    IF p_account_id IS NULL OR p_jobs IS NULL OR octet_length(p_jobs::text) > 5242880 OR json_typeof(p_jobs) <> 'array'
        OR json_array_length(p_jobs) NOT BETWEEN 1 AND 1000
    THEN
        RAISE EXCEPTION 'invalid_batch' USING ERRCODE = 'PT422',
            DETAIL = 'A batch is an array of 1 to 1000 jobs, of up to 5 MiB in all.';
    END IF;
    IF p_key IS NOT NULL THEN
        -- Before anything else is looked at: what was bought stays bought, whatever has become of its kind.
        SELECT * INTO bought FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
        IF FOUND THEN
            hash := punchcard.request_hash(p_key, 'batch', punchcard.fingerprints(p_jobs));
            RETURN QUERY SELECT * FROM punchcard.replay_batch(bought, hash);
            RETURN;
        END IF;
    END IF;

    -- The jobs as parallel arrays: read once and sorted once, used by each statement below.
    SELECT array_agg(w.kind) AS kinds, array_agg(w.input) AS inputs, array_agg(w.bytes) AS bytes,
           array_agg(least(coalesce(w.priority, 0), w.max_priority)) AS priorities, array_agg(greatest(w.run_at, now())) AS run_ats,
           array_agg(w.price) AS prices, array_agg(w.metered) AS metered, array_agg(w.on_cancel) AS on_cancel,
           array_agg(w.on_input_error) AS on_input_error, array_agg(w.max_attempts) AS attempts,
           array_agg(w.max_crashes) AS crashes, array_agg(make_interval(secs => w.life_seconds)) AS lives,
           array_agg(CASE w.dispatch WHEN 'sqs' THEN extract(epoch FROM greatest(w.run_at, now()) - now()) END)
               ::double precision[] AS wakes,
           sum(w.price)::bigint AS total, sum(w.bytes)::bigint AS total_bytes,
           min(w.n) FILTER (WHERE w.name IS NULL) AS unknown_kind,
           min(w.n) FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority) AS invalid_priority,
           (array_agg(w.max_priority) FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority))[1]
               AS max_priority,
           min(w.n) FILTER (WHERE w.run_at > now() + interval '720 hours') AS invalid_run_at,
           min(w.n) FILTER (WHERE w.bytes > 65536 OR position(E'\\u0000' IN w.input::text) > 0) AS invalid_input
    INTO wanted
    -- To json_to_recordset an input that is null is none; where there may be one, the jobs are read again.
    FROM (SELECT r.kind, i.input, octet_length(i.input::text) AS bytes, r.priority, r.run_at, r.n, k.*
          FROM ROWS FROM (json_to_recordset(p_jobs) AS (kind text, input json, priority integer, run_at timestamptz),
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
            DETAIL = format('Job %s of the batch: a priority of this kind is from -10 to %s.', wanted.invalid_priority,
                            wanted.max_priority);
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
    SELECT array_agg(coalesce(o.max_attempts, w.attempts) ORDER BY w.n) AS attempts, array_agg(o.retry ORDER BY w.n) AS retries,
           array_agg(o.metadata ORDER BY w.n) AS metadata, array_agg(to_jsonb(o.tags) ORDER BY w.n) AS tags,
           array_agg(o.webhook ORDER BY w.n) AS webhooks,
           count(*) FILTER (WHERE o.metadata IS NOT NULL OR o.tags IS NOT NULL) AS labeled
    INTO options
    -- As json: jsonb needs many times as much room, and is made of them one by one, and of none that is too long.
    FROM ROWS FROM (unnest(wanted.attempts),
                    json_to_recordset(p_jobs) AS (retry json, metadata json, tags json, webhook json))
         WITH ORDINALITY AS w (attempts, retry, metadata, tags, webhook, n)
    LEFT JOIN LATERAL punchcard.check_options(
        CASE WHEN octet_length(concat(w.retry, w.metadata, w.tags, w.webhook)) > 131072 THEN '[]'
             ELSE jsonb_build_object('retry', w.retry, 'metadata', w.metadata, 'tags', w.tags, 'webhook', w.webhook) END,
        p_account_id, w.attempts) o
        ON w.retry IS NOT NULL OR w.metadata IS NOT NULL OR w.tags IS NOT NULL OR w.webhook IS NOT NULL
    WHERE p_jobs::text ~ '"(retry|metadata|tags|webhook)"';
    IF options.attempts IS NULL THEN
        options.attempts := wanted.attempts;
    END IF;
    SELECT array_agg(v.id ORDER BY v.id) INTO ids
    FROM (SELECT punchcard.uuid_v7() AS id FROM generate_series(1, cardinality(wanted.kinds))) v;

    IF p_key IS NOT NULL THEN
        batch := ids[1];
        -- The first job carries the key. A twin in flight is waited for here, by the unique index.
        INSERT INTO punchcard.jobs (account_id, id, kind, price, metered, on_cancel, on_input_error, priority, max_attempts,
                                    retry, scheduled_at, expires_at, idempotency_key, request_hash, batch_id, metadata, tags,
                                    webhook, input)
        VALUES (p_account_id, batch, wanted.kinds[1], wanted.prices[1], wanted.metered[1], wanted.on_cancel[1],
                wanted.on_input_error[1], wanted.priorities[1], options.attempts[1], options.retries[1], wanted.run_ats[1],
                wanted.run_ats[1] + wanted.lives[1], p_key, hash, batch, options.metadata[1],
                CASE WHEN options.tags[1] IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(options.tags[1])) END,
                options.webhooks[1], wanted.inputs[1])
        ON CONFLICT (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO STRICT bought FROM punchcard.jobs j
            WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
            RETURN QUERY SELECT * FROM punchcard.replay_batch(bought, hash);
            RETURN;
        END IF;
    END IF;

    balance := punchcard.hold_credits(p_account_id, wanted.total, cardinality(ids), wanted.total_bytes);
    IF options.labeled > 0 THEN
        PERFORM punchcard.label(p_account_id, l.id, ARRAY(SELECT jsonb_array_elements_text(l.tags)), l.metadata)
        FROM unnest(ids, options.tags, options.metadata) AS l (id, tags, metadata);
    END IF;
    WITH job AS MATERIALIZED (
        SELECT * FROM unnest(ids, wanted.kinds, wanted.inputs, wanted.bytes, wanted.priorities, wanted.run_ats, wanted.prices,
                             wanted.metered, wanted.on_cancel, wanted.on_input_error, options.attempts, wanted.crashes,
                             options.retries, options.metadata, options.tags, options.webhooks, wanted.lives)
            AS w (id, kind, input, bytes, priority, run_at, price, metered, on_cancel, on_input_error, max_attempts,
                  max_crashes, retry, metadata, tags, webhook, life)
    ), bought AS (
        INSERT INTO punchcard.jobs (account_id, id, kind, price, metered, on_cancel, on_input_error, priority, max_attempts,
                                    retry, scheduled_at, expires_at, batch_id, metadata, tags, webhook, input)
        SELECT p_account_id, w.id, w.kind, w.price, w.metered, w.on_cancel, w.on_input_error, w.priority, w.max_attempts,
               w.retry, w.run_at, w.run_at + w.life, batch, w.metadata,
               CASE WHEN w.tags IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(w.tags)) END, w.webhook, w.input
        FROM job w WHERE w.id IS DISTINCT FROM batch
    ), queued AS (
        INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, metered, on_cancel, on_input_error, bytes,
                                     priority, max_attempts, max_crashes, run_at, expires_at, webhook)
        SELECT w.id, p_account_id, balance.share, w.kind, w.price, w.metered, w.on_cancel, w.on_input_error, w.bytes,
               w.priority, w.max_attempts, w.max_crashes, w.run_at, w.run_at + w.life, w.webhook
        FROM job w
    )
    -- The account moved once; each job still gets an entry of its own, with the balances after it.
    INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after, job_id)
    SELECT p_account_id, 'hold', w.price, balance.share,
           balance.available + wanted.total - sum(w.price) OVER so_far,
           balance.held - wanted.total + sum(w.price) OVER so_far, w.id
    FROM job w WHERE w.price > 0
    WINDOW so_far AS (ORDER BY w.id);
    RETURN QUERY
    SELECT w.id, w.kind, 'queued', w.price, false, w.wake_after
    FROM unnest(ids, wanted.kinds, wanted.prices, wanted.wakes) AS w (id, kind, price, wake_after);
END $$;

-- queued -> running for up to p_limit due jobs, by priority, then age, under a lease of at most p_lease seconds; those
-- in p_named, which the worker was woken for, before all others.
-- Only kinds that the worker serves: the Rust kinds in p_kinds and, if p_http, HTTP targets, whose time limit fits into
-- the p_budget seconds that it has left; if it was woken, p_woken, only those that SQS dispatches; and retired ones, to
-- fail them.
-- p_after_* say, for a priority, the `run_at` (in microseconds since 1970) and id of the last job that this worker
-- claimed of it: the next claim starts there, and never walks again past the dead rows of its own earlier claims,
-- which no vacuum removes while a long transaction is open anywhere (ADR 0007). But for what is due since less than
-- five seconds: jobs are not committed in the order of their `run_at`. What a claim passes over for its start, the
-- next one without a start finds.
CREATE FUNCTION punchcard.claim(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision,
    p_after_priorities smallint[] DEFAULT '{}', p_after_run_ats bigint[] DEFAULT '{}', p_after_ids uuid[] DEFAULT '{}',
    p_named uuid[] DEFAULT '{}', p_woken boolean DEFAULT false)
    RETURNS TABLE (
        job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint,
        input text, url text, secret_version integer, retired boolean, timeout_seconds integer,
        backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision, priority smallint,
        run_at_micros bigint, price bigint, metered boolean, backoff text, backoff_delays integer[],
        jitter double precision, retry text, cancel_url text, callback_seconds integer, checkpoint text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH served AS MATERIALIZED (
        SELECT array_agg(k.name) AS names FROM punchcard.kinds k
        WHERE (CASE WHEN k.url IS NULL THEN k.name = ANY (p_kinds) ELSE p_http END AND k.timeout_seconds <= p_budget
               AND NOT (p_woken AND k.dispatch = 'poll'))
           OR k.retired_at IS NOT NULL
    ), level AS MATERIALIZED (
        -- None if nothing is served: then no row is read to find that out.
        SELECT l.priority::smallint AS priority,
               CASE WHEN a.run_at IS NULL THEN '-infinity'  -- least() would ignore it
                    ELSE least(timestamptz 'epoch' + a.run_at * interval '1 microsecond', now() - interval '5 seconds')
               END AS run_at,
               coalesce(a.id, '00000000-0000-0000-0000-000000000000') AS id
        FROM generate_series(10, -10, -1) AS l (priority)
        LEFT JOIN unnest(p_after_priorities, p_after_run_ats, p_after_ids) AS a (priority, run_at, id)
            ON a.priority = l.priority
        WHERE (SELECT names FROM served) IS NOT NULL
    ), due AS MATERIALIZED (
        SELECT d.job_id FROM (
            SELECT q.job_id FROM punchcard.queue q
            WHERE q.job_id = ANY (p_named) AND q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.run_at <= now()
              AND q.expires_at > now() AND q.kind = ANY ((SELECT names FROM served)::text[])
            LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED) d
        UNION ALL
        -- One range of the index for each priority: delayed jobs lie behind `now()` in each, and are never read.
        SELECT d.job_id
        FROM level l, LATERAL (
            SELECT q.job_id FROM punchcard.queue q
            WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.priority = l.priority
              AND q.run_at <= now() AND (q.run_at, q.job_id) > (l.run_at, l.id)
              AND q.expires_at > now() AND q.kind = ANY ((SELECT names FROM served)::text[])
              AND q.job_id <> ALL (p_named)
            ORDER BY q.run_at, q.job_id
            LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED) d
        LIMIT p_limit
    ), claimed AS (
        UPDATE punchcard.queue q
        SET attempt = q.attempt + 1, lease_token = q.lease_token + 1,
            lease_expires_at = least(clock_timestamp() + make_interval(secs => p_lease), q.expires_at),
            started_at = coalesce(q.started_at, clock_timestamp()), run_started_at = clock_timestamp()
        WHERE q.job_id = ANY (ARRAY(SELECT d.job_id FROM due d))
        RETURNING q.*
    ), told AS (
        INSERT INTO punchcard.deliveries (id, account_id, job_id, event, url, next_at)
        SELECT punchcard.uuid_v7(), c.account_id, c.job_id, 'job.running', c.webhook ->> 'url', now()
        FROM claimed c LEFT JOIN punchcard.webhooks w ON w.account_id = c.account_id
        WHERE CASE WHEN c.webhook IS NOT NULL THEN c.webhook -> 'events' ? 'job.running'
                   ELSE w.url IS NOT NULL AND w.disabled_at IS NULL AND 'job.running' = ANY (w.events) END
        RETURNING job_id
    )
    SELECT c.job_id, c.lease_token, c.account_id, c.kind, c.attempt, c.max_attempts, j.input::text, k.url,
           k.secret_version, k.retired_at IS NOT NULL, k.timeout_seconds, k.backoff_seconds, k.backoff_max_seconds,
           extract(epoch FROM c.lease_expires_at - clock_timestamp())::double precision, c.priority,
           (extract(epoch FROM greatest(c.run_at, timestamptz 'epoch')) * 1000000)::bigint, c.price, c.metered, k.backoff, k.backoff_delays, k.jitter,
           j.retry::text, k.cancel_url, k.callback_seconds, c.checkpoint::text, EXISTS (SELECT FROM told)
    FROM claimed c
    JOIN punchcard.jobs j ON j.account_id = c.account_id AND j.id = c.job_id
    JOIN punchcard.kinds k ON k.name = c.kind;
END $$;

-- Claims as `claim` does, job by job, for when one of them cannot be claimed at all (a trigger of the team's, a row that was
-- changed by hand): that one stays as it is, and keeps no other from being claimed. Accounts come in any order, so that none is
-- always the first, and one whose job was refused is passed over. Ends after some seconds.
CREATE FUNCTION punchcard.claim_singly(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision, p_woken boolean)
    RETURNS TABLE (
        job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint,
        input text, url text, secret_version integer, retired boolean, timeout_seconds integer,
        backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision, priority smallint,
        run_at_micros bigint, price bigint, metered boolean, backoff text, backoff_delays integer[],
        jitter double precision, retry text, cancel_url text, callback_seconds integer, checkpoint text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    salt text := gen_random_uuid()::text;
    began timestamptz;
    begun timestamptz;
    claimed bigint := 0;
    refused uuid[] := '{}';  -- accounts
    known integer;
    next record;
    one record;
BEGIN
    LOOP
        known := cardinality(refused);
        FOR next IN
            SELECT d.job_id, d.account_id FROM (
                SELECT q.job_id, q.account_id, l.priority, q.run_at
                FROM generate_series(10, -10, -1) AS l (priority), LATERAL (
                    SELECT q.job_id, q.account_id, q.run_at FROM punchcard.queue q
                    WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.priority = l.priority
                      AND q.run_at <= now() AND q.expires_at > now() AND q.account_id <> ALL (refused)
                      AND q.kind = ANY (ARRAY(
                          SELECT k.name FROM punchcard.kinds k
                          WHERE k.retired_at IS NOT NULL
                             OR (CASE WHEN k.url IS NULL THEN k.name = ANY (p_kinds) ELSE p_http END
                                 AND k.timeout_seconds <= p_budget AND NOT (p_woken AND k.dispatch = 'poll'))))
                    ORDER BY q.run_at, q.job_id LIMIT 1000) q
                LIMIT 1000) d
            ORDER BY hashtext(d.account_id || salt), d.account_id, d.priority DESC, d.run_at, d.job_id
        LOOP
            began := coalesce(began, clock_timestamp());
            begun := clock_timestamp();
            IF claimed >= p_limit OR begun > began + interval '3 seconds' THEN
                RETURN;
            END IF;
            CONTINUE WHEN next.account_id = ANY (refused);
            -- What is answered is what is kept: not before the last of it that can be undone.
            BEGIN
                SET CONSTRAINTS ALL DEFERRED;
                PERFORM FROM punchcard.queue q
                WHERE q.job_id = next.job_id AND q.lease_expires_at IS NULL AND q.waiting_until IS NULL
                FOR NO KEY UPDATE SKIP LOCKED;
                CONTINUE WHEN NOT FOUND;
                SELECT * INTO one FROM punchcard.claim(1, p_kinds, p_http, p_budget, p_lease,
                                                       p_named => ARRAY[next.job_id], p_woken => p_woken) c;
                SET CONSTRAINTS ALL IMMEDIATE;
            EXCEPTION
                WHEN transaction_rollback OR insufficient_resources THEN
                    RAISE;  -- of this job it says nothing
                WHEN OTHERS OR assert_failure OR query_canceled THEN
                    RAISE LOG 'punchcard: job % cannot be claimed: % %', next.job_id, SQLSTATE, SQLERRM;
                    -- The time-out of this statement is over, and bounds nothing any more.
                    IF SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second' THEN
                        RETURN;
                    END IF;
                    refused := refused || next.account_id;
                    CONTINUE;
            END;
            IF one.job_id IS NOT NULL THEN
                claimed := claimed + 1;
                RETURN QUERY
                SELECT one.job_id, one.lease_token, one.account_id, one.kind, one.attempt, one.max_attempts, one.input, one.url,
                       one.secret_version, one.retired, one.timeout_seconds, one.backoff_seconds, one.backoff_max_seconds,
                       one.lasts_seconds, one.priority, one.run_at_micros, one.price, one.metered, one.backoff,
                       one.backoff_delays, one.jitter, one.retry, one.cancel_url, one.callback_seconds, one.checkpoint,
                       one.told;
            END IF;
        END LOOP;
        -- Those behind the jobs of accounts that are passed over now.
        EXIT WHEN cardinality(refused) = known;
    END LOOP;
END $$;

-- Locks what verdicts move, as far as nobody else holds it: the queue rows (unless p_rescue: the caller holds them), then the
-- accounts of the jobs that end. What somebody else holds is waited for, for p_patience milliseconds in all, in equal parts;
-- while that is less than `deadlock_timeout`, no deadlock comes of it. Answers the jobs that are still out of reach.
CREATE FUNCTION punchcard.lock_for_settling(
    p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_rescue boolean, p_patience integer) RETURNS uuid[]
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until timestamptz := clock_timestamp() + p_patience * interval '1 millisecond';
    mine uuid[] := p_job_ids;
    out_of_reach uuid[] := '{}';
    held text[] := '{}';  -- elsewhere: account, share and jobs of each, as JSON
    account record;
    patience double precision;
BEGIN
    IF NOT p_rescue THEN
        mine := ARRAY(
            SELECT q.job_id FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
            JOIN punchcard.queue q ON q.job_id = v.job_id AND q.lease_token = v.lease_token
            ORDER BY q.job_id FOR NO KEY UPDATE OF q SKIP LOCKED);
        out_of_reach := ARRAY(
            SELECT q.job_id FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
            JOIN punchcard.queue q ON q.job_id = v.job_id AND q.lease_token = v.lease_token
            WHERE q.job_id <> ALL (mine));
    END IF;
    FOR account IN
        SELECT q.account_id, q.share, array_agg(q.job_id) AS job_ids
        FROM unnest(p_job_ids, p_verdicts) AS v (job_id, verdict) JOIN punchcard.queue q ON q.job_id = v.job_id
        WHERE q.job_id = ANY (mine)
          AND (v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue') OR q.cancel_requested_at IS NOT NULL
               OR (v.verdict = 'crash' AND q.crashes + 1 >= q.max_crashes)
               OR (v.verdict = 'retry' AND q.attempt >= q.max_attempts))
        GROUP BY q.account_id, q.share ORDER BY q.account_id, q.share
    LOOP
        PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
        FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            held := held || row_to_json(account)::text;
        END IF;
    END LOOP;
    FOR account IN
        SELECT h.account_id, h.share, h.job_ids, count(*) OVER () - row_number() OVER () + 1 AS waiting
        FROM unnest(held) AS e (held), json_to_record(e.held::json) AS h (account_id uuid, share smallint, job_ids uuid[])
    LOOP
        patience := extract(epoch FROM until - clock_timestamp()) * 1000 / account.waiting;
        IF patience >= 1 THEN
            BEGIN
                PERFORM set_config('lock_timeout', floor(patience)::text, true);
                PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
                FOR NO KEY UPDATE;
                CONTINUE;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                NULL;
            END;
        END IF;
        out_of_reach := out_of_reach || account.job_ids;
    END LOOP;
    RETURN out_of_reach;
END $$;
-- Whether a run of a job has ended that did something for it, or may have: what canceling it costs from then
-- on is its kind's `on_cancel`. A run that was put off because what it relies on was away did nothing, and
-- one that was handed back before it began left no trace. Of the runs that `attempts` keeps: the first 1,000.
CREATE FUNCTION punchcard.has_run(p_job_id uuid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM punchcard.attempts a
                   WHERE a.job_id = p_job_id AND (a.ended <> 'snooze' OR a.error IS NULL))
$$;

-- Settles runs in one statement: the job's status, the ledger entries and the balance move together. Verdicts:
--   complete  succeeded, with its output             retry   queued again after p_delays seconds
--   fail      failed                                 snooze  the same, the attempt not counted
--   reject    failed, and its input is to blame      crash   the same, a crash counted; failed if that was the last
--   cancel    canceled, as was asked for             yield   queued again at once, the attempt not counted
--   overdue   failed: nobody called back in time     return  queued as it was: it never started
--   wait      running without a lease: somebody outside calls back within p_delays seconds
-- A job that is to be canceled is not queued again, but canceled, and one that has no attempt left fails. What succeeds, or
-- fails for good, does.
-- p_outputs are also what a run that goes on later saved for it. p_used are the credits that a metered job used; NULL: all.
-- Each verdict needs its lease: same token, not expired. p_rescue is for those that hold the row's lock: `rescue`, which takes
-- back what has lapsed, `cancel` and `call_back`.
-- What somebody else holds, a job's row or its account's, is waited for for 200 ms; then all of it is refused (55P03) and can be
-- sent again with p_patience, a time in milliseconds: then what is still held after it is left out, and answered with a NULL
-- as its status. A batch that nobody is in the way of pays nothing for that (ADR 15).
-- Answers the jobs it settled, and whether somebody is to be told of it; whoever is missing had lost its lease, and nothing
-- of it was written. Raises PT422 unknown_verdict.
CREATE FUNCTION punchcard.settle(
    p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_delays double precision[],
    p_outputs text[], p_errors text[], p_used bigint[] DEFAULT NULL, p_rescue boolean DEFAULT false,
    p_patience integer DEFAULT NULL)
    RETURNS TABLE (job_id uuid, status text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
    out_of_reach uuid[] := '{}';
BEGIN
    -- One that this edition does not know must not pass for a lost lease.
    IF NOT p_verdicts <@ ARRAY['complete', 'fail', 'reject', 'cancel', 'overdue', 'retry', 'snooze', 'crash', 'yield', 'return',
                               'wait']
        OR cardinality(p_verdicts) <> cardinality(p_job_ids) OR cardinality(p_lease_tokens) <> cardinality(p_job_ids)
    THEN
        RAISE EXCEPTION 'unknown_verdict' USING ERRCODE = 'PT422',
            DETAIL = 'Each job needs its lease token, and one of the verdicts that this function knows.';
    END IF;
    IF p_patience IS NOT NULL THEN
        out_of_reach := punchcard.lock_for_settling(p_job_ids, p_lease_tokens, p_verdicts, p_rescue, p_patience);
    END IF;
    RETURN QUERY
    WITH verdict AS MATERIALIZED (
        -- Rows are locked in the order of job ids, then accounts in theirs (nested loops keep it), so that two
        -- pollers do not deadlock.
        SELECT * FROM unnest(p_job_ids, p_lease_tokens, p_verdicts, p_delays, p_outputs, p_errors, p_used)
            AS v (job_id, lease_token, verdict, delay, output, error, used)
        WHERE v.job_id <> ALL (out_of_reach)
        ORDER BY v.job_id
    ), undecided AS MATERIALIZED (
        -- Whether these end the job is in its row, which is locked to look: a cancel may just be on its way.
        SELECT v.*, q.cancel_requested_at IS NOT NULL OR (v.verdict = 'crash' AND q.crashes + 1 >= q.max_crashes)
                    OR (v.verdict = 'retry' AND q.attempt >= q.max_attempts) AS ends
        FROM verdict v JOIN punchcard.queue q ON q.job_id = v.job_id
        WHERE v.verdict IN ('retry', 'snooze', 'yield', 'crash', 'return', 'wait') AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
        FOR NO KEY UPDATE OF q
    ), again AS (
        UPDATE punchcard.queue q
        SET attempt = CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt - 1 END,
            crashes = CASE v.verdict WHEN 'crash' THEN q.crashes + 1 ELSE q.crashes END,
            lease_expires_at = NULL,
            waiting_until = CASE v.verdict WHEN 'wait' THEN least(now() + make_interval(secs => v.delay), q.expires_at) END,
            run_at = CASE WHEN v.verdict IN ('return', 'wait') THEN q.run_at ELSE now() + make_interval(secs => v.delay) END,
            checkpoint = coalesce(v.output::json, q.checkpoint),
            error = coalesce(v.error::json, q.error),
            progress_percent = CASE v.verdict WHEN 'wait' THEN q.progress_percent END,
            progress_message = CASE v.verdict WHEN 'wait' THEN q.progress_message END,
            progress_at = CASE v.verdict WHEN 'wait' THEN q.progress_at END
        FROM undecided v
        WHERE q.job_id = v.job_id AND NOT v.ends
        RETURNING q.job_id, q.lease_token, v.verdict, q.run_started_at, v.error,
                  CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt + 1 END AS attempt
    ), ending AS MATERIALIZED (
        -- Apart, and not as a sub-select of what deletes: of an appended sub-select PostgreSQL checks a row that was touched
        -- meanwhile against the first row alone, and would drop its verdict (see the README beside this file).
        SELECT v.* FROM verdict v WHERE v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue')
        UNION ALL
        SELECT u.job_id, u.lease_token, u.verdict, u.delay, u.output, u.error, u.used FROM undecided u WHERE u.ends
    ), ended AS (
        DELETE FROM punchcard.queue q
        USING ending v
        WHERE q.job_id = v.job_id AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
          AND (v.verdict <> 'cancel' OR q.cancel_requested_at IS NOT NULL)
        RETURNING q.job_id, q.account_id, q.kind, q.share, q.price, q.bytes, q.attempt, q.lease_token, q.started_at, q.webhook,
                  -- Whoever it waits for is still at work, and can be told to stop.
                  v.verdict = 'wait' OR (v.verdict IN ('cancel', 'overdue') AND q.waiting_until IS NOT NULL) AS dropped,
                  CASE WHEN v.verdict = 'crash' AND q.cancel_requested_at IS NULL THEN q.crashes + 1 ELSE q.crashes END
                      AS crashes,
                  CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL AND v.verdict <> 'return'
                       THEN q.run_started_at END AS run_started_at,
                  CASE WHEN v.verdict = 'complete' THEN 'succeeded'
                       WHEN v.verdict IN ('fail', 'reject', 'overdue') OR q.cancel_requested_at IS NULL THEN 'failed'
                       ELSE 'canceled' END AS status,
                  CASE WHEN v.verdict = 'complete' OR (v.verdict = 'reject' AND q.on_input_error = 'capture')
                           -- Canceled while it ran or waited outside, or between two runs: what was done for
                           -- it is paid for.
                           OR (v.verdict NOT IN ('fail', 'reject', 'overdue')
                               AND q.cancel_requested_at IS NOT NULL AND q.on_cancel = 'capture'
                               AND ((v.verdict <> 'return'
                                     AND coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL)
                                    OR punchcard.has_run(q.job_id)))
                       THEN CASE WHEN q.metered THEN greatest(least(v.used, q.price), 0) ELSE q.price END
                       ELSE 0 END AS captured,
                  CASE v.verdict WHEN 'complete' THEN v.output::json END AS output,
                  CASE WHEN v.verdict <> 'complete' THEN coalesce(v.error::json, q.error) END AS error
    ), history AS (
        INSERT INTO punchcard.attempts (job_id, number, attempt, ended, started_at, ended_at, error)
        SELECT a.job_id, a.lease_token, a.attempt, a.verdict, a.run_started_at, clock_timestamp(), a.error::json
        FROM again a WHERE a.verdict NOT IN ('return', 'wait') AND a.lease_token <= 1000
    ), outcome AS (
        INSERT INTO punchcard.outcomes (job_id, account_id, status, captured, attempt, crashes, lease_token, started_at,
                                        run_started_at, finished_at, output, error)
        SELECT e.job_id, e.account_id, e.status, e.captured, e.attempt, e.crashes, e.lease_token, e.started_at,
               e.run_started_at, clock_timestamp(), e.output, e.error
        FROM ended e
    ), told AS (
        INSERT INTO punchcard.deliveries (id, account_id, job_id, event, url, next_at)
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, 'job.' || e.status, e.webhook ->> 'url', now()
        FROM ended e LEFT JOIN punchcard.webhooks w ON w.account_id = e.account_id
        WHERE CASE WHEN e.webhook IS NOT NULL THEN e.webhook -> 'events' ? ('job.' || e.status)
                   ELSE w.url IS NOT NULL AND w.disabled_at IS NULL AND 'job.' || e.status = ANY (w.events) END
        UNION ALL
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, 'cancel', k.cancel_url, now()
        FROM ended e JOIN punchcard.kinds k ON k.name = e.kind
        WHERE e.dropped AND k.cancel_url IS NOT NULL
        RETURNING job_id
    ), moved AS (
        -- The account moves once; its jobs go along, so that nothing is joined with itself.
        UPDATE punchcard.accounts a
        SET available = a.available + m.back, held = a.held - m.price,
            unfinished_jobs = a.unfinished_jobs - m.jobs, unfinished_bytes = a.unfinished_bytes - m.bytes
        FROM (SELECT e.account_id, e.share, sum(e.price)::bigint AS price, sum(e.price - e.captured)::bigint AS back,
                     count(*)::integer AS jobs, sum(e.bytes)::bigint AS bytes,
                     array_agg(e.job_id) AS job_ids, array_agg(e.price) AS prices, array_agg(e.captured) AS captured
              FROM ended e
              GROUP BY e.account_id, e.share ORDER BY e.account_id, e.share) m
        WHERE a.id = m.account_id AND a.share = m.share
        RETURNING a.id, a.share, a.available, a.held, m.job_ids, m.prices, m.captured
    ), entered AS (
        -- Each job still gets entries of its own, one for what is captured and one for what is released, with the balances
        -- after them.
        INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after, job_id)
        SELECT a.id, p.kind::punchcard.entry_kind, p.amount, a.share,
               a.available - coalesce(sum(p.amount) FILTER (WHERE p.kind = 'release') OVER later, 0),
               a.held + coalesce(sum(p.amount) OVER later, 0), e.job_id
        FROM moved a, unnest(a.job_ids, a.prices, a.captured) WITH ORDINALITY AS e (job_id, price, captured, n),
             LATERAL (VALUES (1, 'capture', e.captured), (2, 'release', e.price - e.captured)) AS p (part, kind, amount)
        WHERE p.amount > 0
        WINDOW later AS (PARTITION BY a.id, a.share ORDER BY e.n DESC, p.part DESC
                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ORDER BY a.id, a.share, e.n, p.part
    )
    SELECT e.job_id, e.status, EXISTS (SELECT FROM told) FROM ended e
    UNION ALL SELECT a.job_id, CASE a.verdict WHEN 'wait' THEN 'running' ELSE 'queued' END, false FROM again a
    UNION ALL SELECT o.job_id, NULL, false FROM unnest(out_of_reach) AS o (job_id);
END $$;

-- Up to p_limit jobs that have lapsed, longest first, but for those of the accounts p_busy; locks their rows.
CREATE FUNCTION punchcard.lapsed(p_limit bigint, p_busy uuid[])
    RETURNS TABLE (job_id uuid, account_id uuid, lease_token bigint, verdict text, error text)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT q.job_id, q.account_id, q.lease_token,
           CASE WHEN canceled THEN 'cancel' WHEN waiting THEN 'overdue' WHEN expired THEN 'fail' ELSE 'crash' END,
           CASE WHEN canceled THEN NULL
                WHEN waiting
                THEN json_build_object('code', 'not_called_back', 'message', 'nobody called back in time', 'attempt', attempt)
                WHEN expired
                THEN json_build_object('code', 'expired', 'message', 'not finished within its life', 'attempt', attempt)
                ELSE json_build_object('code', 'lease_expired', 'message',
                     'the worker did not report before its lease expired', 'attempt', attempt) END::text
    FROM (
        SELECT q.job_id, q.account_id, q.lease_token, q.attempt, q.expires_at <= now() AS expired,
               q.cancel_requested_at IS NOT NULL AS canceled, q.waiting_until IS NOT NULL AS waiting
        FROM punchcard.queue q
        WHERE coalesce(q.lease_expires_at, q.waiting_until, q.expires_at) <= now() AND q.account_id <> ALL (p_busy)
        ORDER BY coalesce(q.lease_expires_at, q.waiting_until, q.expires_at)
        LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED) q
$$;

-- Takes back up to p_limit jobs that have lapsed. Past its life a job fails, and so does one that nobody called back for in
-- time; a job whose lease expired has crashed, and is queued again at once (the lease was delay enough); one that was to be
-- canceled is. None keeps the others waiting: one whose account somebody holds, or that the database refuses, stays as it is,
-- and is answered with a NULL as its status; p_busy are accounts that such jobs are not to be asked for of again. Where each
-- has to be tried alone, it ends after some seconds, and leaves the others to the next call.
CREATE FUNCTION punchcard.rescue(p_limit bigint, p_busy uuid[] DEFAULT '{}')
    RETURNS TABLE (job_id uuid, status text, told boolean, account_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    begun timestamptz := clock_timestamp();
    began timestamptz;
    ids uuid[];
    accounts uuid[];
    tokens bigint[];
    verdicts text[];
    errors text[];
    at_once double precision[];
    settled uuid[];
    statuses text[];
    tellings boolean[];
BEGIN
    SELECT array_agg(l.job_id), array_agg(l.account_id), array_agg(l.lease_token), array_agg(l.verdict), array_agg(l.error),
           array_agg(0)
    INTO ids, accounts, tokens, verdicts, errors, at_once
    FROM punchcard.lapsed(p_limit, p_busy) l;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    -- What is answered is what is kept: not before the last of it that can be undone.
    BEGIN
        SET CONSTRAINTS ALL DEFERRED;
        SELECT array_agg(s.job_id), array_agg(s.status), array_agg(s.told) INTO settled, statuses, tellings
        FROM punchcard.settle(ids, tokens, verdicts, at_once, NULL, errors, p_rescue => true, p_patience => 200) s;
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
        -- The time-out of this statement is over, and would bound nothing any more.
        IF SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second' THEN
            RAISE;
        END IF;
        RAISE LOG 'punchcard: % lapsed jobs are taken back one by one: % %', cardinality(ids), SQLSTATE, SQLERRM;
        began := clock_timestamp();
    END;
    IF began IS NULL THEN
        RETURN QUERY
        SELECT s.job_id, s.status, s.told, l.account_id
        FROM unnest(settled, statuses, tellings) AS s (job_id, status, told)
        JOIN unnest(ids, accounts) AS l (job_id, account_id) ON l.job_id = s.job_id;
        RETURN;
    END IF;
    FOR n IN 1 .. cardinality(ids) LOOP
        begun := clock_timestamp();
        -- Well before a time-out would undo them all; what is not answered is for the next call.
        EXIT WHEN begun > began + interval '3 seconds';
        job_id := ids[n];
        account_id := accounts[n];
        status := NULL;
        told := false;
        BEGIN
            SET CONSTRAINTS ALL DEFERRED;
            SELECT s.job_id, s.status, s.told INTO job_id, status, told
            FROM punchcard.settle(ids[n:n], tokens[n:n], verdicts[n:n], at_once[n:n], NULL, errors[n:n], p_rescue => true,
                                  p_patience => 1) s;
            SET CONSTRAINTS ALL IMMEDIATE;
            CONTINUE WHEN job_id IS NULL;
        EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
            RAISE LOG 'punchcard: job % cannot be taken back: % %', ids[n], SQLSTATE, SQLERRM;
            job_id := ids[n];
            status := NULL;
            told := false;
            RETURN NEXT;
            EXIT WHEN SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second';
            CONTINUE;
        END;
        RETURN NEXT;
    END LOOP;
END $$;

SELECT punchcard.revoke_defaults();
