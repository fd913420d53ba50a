-- Kinds and jobs: what can be bought, and what was.

CREATE TABLE punchcard.kinds (
    name                 text PRIMARY KEY CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    price                bigint NOT NULL CHECK (price BETWEEN 0 AND 1000000000000),
    max_attempts         integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 25),
    backoff_seconds      integer NOT NULL DEFAULT 10 CHECK (backoff_seconds BETWEEN 1 AND 86400),
    backoff_max_seconds  integer NOT NULL DEFAULT 3600 CHECK (backoff_max_seconds BETWEEN 1 AND 86400),
    timeout_seconds      integer NOT NULL DEFAULT 30 CHECK (timeout_seconds BETWEEN 1 AND 840),
    life_seconds         integer NOT NULL DEFAULT 604800 CHECK (life_seconds BETWEEN 60 AND 2592000),
    url                  text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- NULL: Rust code of this name
    secret_version       integer NOT NULL DEFAULT 1 CHECK (secret_version BETWEEN 1 AND 1000000),
    retired_at           timestamptz                   -- not sold any more; what is queued fails and is released
);
CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');

-- One row for each piece of work. Status words are the ADR's, and `canceled`.
CREATE TABLE punchcard.jobs (
    id                uuid PRIMARY KEY,                -- UUIDv7: sorts by creation
    account_id        uuid NOT NULL REFERENCES punchcard.accounts,
    kind              text NOT NULL,
    status            text NOT NULL DEFAULT 'queued',
    price             bigint NOT NULL CHECK (price >= 0),          -- what was held, whatever the kind costs later
    attempt           integer NOT NULL DEFAULT 0,      -- starts so far
    max_attempts      integer NOT NULL CHECK (max_attempts BETWEEN 1 AND 25),
    lease_token       bigint NOT NULL DEFAULT 0 CHECK (lease_token >= attempt),  -- rises with each claim, never falls
    lease_expires_at  timestamptz,                     -- the right to run the job ends here
    run_at            timestamptz NOT NULL DEFAULT now(),          -- not before
    expires_at        timestamptz NOT NULL,            -- unfinished by then: failed and released
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,                     -- first claim
    finished_at       timestamptz,
    idempotency_key   text CHECK (idempotency_key ~ '^[\x20-\x7e]{1,128}$'),
    request_hash      bytea,                           -- SHA-256 of what the key was used for
    input             json NOT NULL,                   -- as it was sent, digit for digit
    output            json,
    error             json,                            -- of the last attempt that erred: {code, message, attempt}

    CONSTRAINT jobs_status_is_known CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    CONSTRAINT jobs_final_iff_finished
        CHECK ((status IN ('succeeded', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CONSTRAINT jobs_running_iff_leased CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT jobs_output_iff_succeeded CHECK ((status = 'succeeded') = (output IS NOT NULL)),
    CONSTRAINT jobs_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL),
    CONSTRAINT jobs_attempts_are_bounded CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT jobs_key_has_hash CHECK ((idempotency_key IS NULL) = (request_hash IS NULL)),
    CONSTRAINT jobs_live_long_enough CHECK (expires_at < 'infinity' AND run_at < 'infinity')
) WITH (fillfactor = 70);

-- A client's name for a request, kept as long as its job.
CREATE UNIQUE INDEX jobs_idempotency_key ON punchcard.jobs (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_account ON punchcard.jobs (account_id, id);      -- a caller's own jobs, newest first
-- Claim reads only what is queued, rescue only what is unfinished: history costs them nothing.
CREATE INDEX jobs_due ON punchcard.jobs (run_at, id) WHERE status = 'queued';
CREATE INDEX jobs_lapse ON punchcard.jobs (coalesce(lease_expires_at, expires_at)) WHERE finished_at IS NULL;

CREATE TRIGGER jobs_final_is_final BEFORE UPDATE ON punchcard.jobs
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL)
    EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');
CREATE TRIGGER jobs_token_never_falls BEFORE UPDATE ON punchcard.jobs
    FOR EACH ROW WHEN (NEW.lease_token < OLD.lease_token)
    EXECUTE FUNCTION punchcard.refuse_change('lease_token never falls');
CREATE TRIGGER jobs_are_kept BEFORE DELETE ON punchcard.jobs
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger names its jobs');
CREATE TRIGGER jobs_are_never_emptied BEFORE TRUNCATE ON punchcard.jobs
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger names its jobs');

-- A UUIDv7 (RFC 9562 §5.7) from the database's clock; PostgreSQL has its own from version 18 on.
CREATE FUNCTION punchcard.uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
        PLACING substring(pg_catalog.int8send((extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- Buys a job: key, price, hold, ledger entry and job row in one call, all or nothing.
-- Answers the job; `replayed` when the key had bought it before. Refuses by raising:
--   PT402 insufficient_credits · PT422 unknown_kind, idempotency_mismatch, invalid_*
CREATE FUNCTION punchcard.enqueue(
    p_account_id uuid, p_kind text, p_input json DEFAULT '{}', p_key text DEFAULT NULL,
    OUT job punchcard.jobs, OUT replayed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    offer punchcard.kinds;
    hash bytea;
    funds bigint;
    balance punchcard.accounts;
BEGIN
    IF p_account_id IS NULL OR p_kind IS NULL OR p_input IS NULL THEN
        RAISE EXCEPTION 'invalid_request' USING ERRCODE = 'PT422',
            DETAIL = 'An account, a kind and an input are required.';
    END IF;
    IF octet_length(p_input::text) > 65536 THEN
        RAISE EXCEPTION 'input_too_large' USING ERRCODE = 'PT422', DETAIL = 'An input has at most 65536 bytes.';
    END IF;
    -- `json` lets a NUL escape pass that no other JSON reader downstream would: the cast refuses it.
    IF position('\u0000' IN p_input::text) > 0 THEN
        BEGIN
            PERFORM p_input::jsonb;
        EXCEPTION WHEN untranslatable_character THEN
            RAISE EXCEPTION 'nul_character' USING ERRCODE = 'PT422', DETAIL = 'An input cannot contain \u0000.';
        END;
    END IF;

    IF p_key IS NOT NULL THEN
        IF p_key !~ '^[\x20-\x7e]{1,128}$' THEN
            RAISE EXCEPTION 'invalid_idempotency_key' USING ERRCODE = 'PT422',
                DETAIL = 'A key has 1 to 128 printable ASCII characters.';
        END IF;
        -- jsonb writes equal inputs alike, whatever their spacing and order of keys.
        hash := sha256(convert_to(p_kind || E'\n' || p_input::jsonb::text, 'UTF8'));
        SELECT * INTO job FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
        replayed := FOUND;
    END IF;

    IF replayed IS NOT TRUE THEN
        SELECT * INTO offer FROM punchcard.kinds k WHERE k.name = p_kind AND k.retired_at IS NULL;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'unknown_kind' USING ERRCODE = 'PT422', DETAIL = 'No such kind is offered.';
        END IF;
        IF offer.price = 0 THEN
            INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
        ELSE
            -- An early, lock-free refusal: a caller without credits leaves no dead row. The hold below decides.
            SELECT a.available INTO funds FROM punchcard.accounts a WHERE a.id = p_account_id;
            IF coalesce(funds, 0) < offer.price THEN
                RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
                    DETAIL = json_build_object('required', offer.price, 'available', coalesce(funds, 0))::text;
            END IF;
        END IF;

        -- A twin in flight with the same key is waited for here, by the unique index.
        INSERT INTO punchcard.jobs (id, account_id, kind, price, max_attempts, expires_at, idempotency_key,
                                    request_hash, input)
        VALUES (punchcard.uuid_v7(), p_account_id, p_kind, offer.price, offer.max_attempts,
                now() + make_interval(secs => offer.life_seconds), p_key, hash, p_input)
        ON CONFLICT (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING * INTO job;
        replayed := NOT FOUND;
        IF replayed THEN
            SELECT * INTO STRICT job FROM punchcard.jobs j
            WHERE j.account_id = p_account_id AND j.idempotency_key = p_key;
        END IF;
    END IF;

    IF replayed THEN
        IF job.request_hash <> hash THEN
            RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
                DETAIL = 'This key was used for another request.';
        END IF;
        RETURN;
    END IF;

    IF offer.price > 0 THEN
        UPDATE punchcard.accounts a SET available = a.available - offer.price, held = a.held + offer.price
        WHERE a.id = p_account_id AND a.available >= offer.price
        RETURNING * INTO balance;
        IF NOT FOUND THEN
            SELECT a.available INTO funds FROM punchcard.accounts a WHERE a.id = p_account_id;
            RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
                DETAIL = json_build_object('required', offer.price, 'available', coalesce(funds, 0))::text;
        END IF;
        INSERT INTO punchcard.ledger (account_id, kind, available_delta, held_delta, available_after, held_after,
                                      job_id)
        VALUES (p_account_id, 'hold', -offer.price, offer.price, balance.available, balance.held, job.id);
    END IF;
END $$;

-- Settles attempts in one statement: the job's status, the ledger entry and the balance move together.
-- A verdict is 'complete' (with output), 'retry' (after p_delays seconds), 'fail', or 'return' (never started:
-- the attempt is not counted). Each needs its lease: same token, still running, not expired. `p_rescue` is for
-- rescue.sql alone, which holds the row locks and takes back what has lapsed.
-- Answers the jobs it settled; whoever is missing had lost its lease, and nothing of it was written.
CREATE FUNCTION punchcard.settle(
    p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_delays double precision[],
    p_outputs text[], p_errors text[], p_rescue boolean DEFAULT false)
    RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SET search_path = ''
    -- The plan is kept for the life of a backend: it must not depend on how small the tables once were.
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH verdict AS (
        SELECT * FROM unnest(p_job_ids, p_lease_tokens, p_verdicts, p_delays, p_outputs, p_errors)
            AS v (job_id, lease_token, verdict, delay, output, error)
    ), leased AS MATERIALIZED (
        -- Jobs are locked in the order of their ids, then accounts in theirs: two pollers cannot deadlock.
        SELECT j.id, v.verdict, v.delay, v.output, v.error
        FROM verdict v JOIN punchcard.jobs j ON j.id = v.job_id
        WHERE j.lease_token = v.lease_token AND j.finished_at IS NULL
          AND (p_rescue OR (j.status = 'running' AND j.lease_expires_at > clock_timestamp()))
        ORDER BY j.id
        FOR NO KEY UPDATE OF j
    ), settled AS (
        UPDATE punchcard.jobs j
        SET status = CASE l.verdict WHEN 'complete' THEN 'succeeded' WHEN 'fail' THEN 'failed' ELSE 'queued' END,
            attempt = CASE l.verdict WHEN 'return' THEN j.attempt - 1 ELSE j.attempt END,
            lease_expires_at = NULL,
            run_at = CASE l.verdict WHEN 'retry' THEN now() + make_interval(secs => l.delay) ELSE j.run_at END,
            finished_at = CASE WHEN l.verdict IN ('complete', 'fail') THEN clock_timestamp() END,
            output = CASE l.verdict WHEN 'complete' THEN l.output::json END,
            error = CASE WHEN l.verdict IN ('retry', 'fail') THEN l.error::json ELSE j.error END
        FROM leased l
        WHERE j.id = l.id
        RETURNING j.id, j.account_id, j.price, j.status
    ), movement AS MATERIALIZED (
        SELECT s.account_id, s.id AS job_id,
               CASE s.status WHEN 'succeeded' THEN 'capture' ELSE 'release' END AS kind,
               CASE s.status WHEN 'succeeded' THEN 0 ELSE s.price END AS available_delta,
               -s.price AS held_delta
        FROM settled s
        WHERE s.price > 0 AND s.status IN ('succeeded', 'failed')
    ), payer AS MATERIALIZED (
        SELECT a.id FROM punchcard.accounts a
        WHERE a.id = ANY (ARRAY(SELECT DISTINCT m.account_id FROM movement m))
        ORDER BY a.id
        FOR NO KEY UPDATE
    ), moved AS (
        UPDATE punchcard.accounts a
        SET available = a.available + m.available_delta, held = a.held + m.held_delta
        FROM (SELECT account_id, sum(available_delta)::bigint AS available_delta, sum(held_delta)::bigint AS held_delta
              FROM movement GROUP BY account_id) m
        WHERE a.id = m.account_id AND a.id IN (SELECT p.id FROM payer p)
        RETURNING a.id, a.available, a.held
    ), entered AS (
        -- The account moved once; each job still gets an entry of its own, with the balances after it.
        INSERT INTO punchcard.ledger (account_id, kind, available_delta, held_delta, available_after, held_after, job_id)
        SELECT m.account_id, m.kind, m.available_delta, m.held_delta,
               a.available - (sum(m.available_delta) OVER later - m.available_delta),
               a.held - (sum(m.held_delta) OVER later - m.held_delta),
               m.job_id
        FROM movement m JOIN moved a ON a.id = m.account_id
        WINDOW later AS (PARTITION BY m.account_id ORDER BY m.job_id DESC)
        ORDER BY m.account_id, m.job_id
        RETURNING 1
    )
    SELECT s.id, s.status FROM settled s, (SELECT count(*) FROM entered) AS e;
END $$;

-- Service tokens: the team's own backend and payment system. Only the SHA-256 is kept; two are valid at a time
-- (the two slots), so that one can be rotated without a gap.
CREATE TABLE punchcard.service_tokens (
    name        text NOT NULL CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    slot        smallint NOT NULL CHECK (slot IN (1, 2)),
    scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['enqueue', 'grant', 'operate']),
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, slot)
);
