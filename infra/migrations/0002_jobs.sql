-- Kinds and jobs: what can be bought, what was, what is to be done, and what came of it (ADR 0007).

CREATE TABLE punchcard.kinds (
    name                 text PRIMARY KEY CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    price                bigint NOT NULL CHECK (price BETWEEN 0 AND 1000000000000),
    max_attempts         integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 25),
    backoff_seconds      integer NOT NULL DEFAULT 10 CHECK (backoff_seconds BETWEEN 1 AND 86400),
    backoff_max_seconds  integer NOT NULL DEFAULT 3600 CHECK (backoff_max_seconds BETWEEN 1 AND 86400),
    timeout_seconds      integer NOT NULL DEFAULT 30 CHECK (timeout_seconds BETWEEN 1 AND 840),
    life_seconds         integer NOT NULL DEFAULT 604800 CHECK (life_seconds BETWEEN 60 AND 2592000),
    dispatch             text NOT NULL DEFAULT 'sqs' CHECK (dispatch IN ('poll', 'sqs')),  -- woken, where SQS is on
    url                  text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- NULL: Rust code of this name
    secret_version       integer NOT NULL DEFAULT 1 CHECK (secret_version BETWEEN 1 AND 1000000),
    retired_at           timestamptz                   -- not sold any more; what is queued fails and is released
);
CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');

-- What was bought. Written once, by the statement that held its price, and never changed.
CREATE TABLE punchcard.jobs (
    account_id       uuid NOT NULL,
    id               uuid NOT NULL,                    -- UUIDv7: sorts by creation
    kind             text NOT NULL,
    price            bigint NOT NULL,                  -- what was held, whatever the kind costs later
    priority         smallint NOT NULL,                -- -10 to 10, higher first
    max_attempts     smallint NOT NULL,
    scheduled_at     timestamptz NOT NULL,             -- asked for: not before
    expires_at       timestamptz NOT NULL,             -- unfinished by then: failed and released
    created_at       timestamptz NOT NULL DEFAULT now(),
    idempotency_key  text,
    request_hash     bytea,                            -- SHA-256 of what the key was used for
    batch_id         uuid,                             -- of a batch with a key: its first job, which carries it
    input            json NOT NULL,                    -- as it was sent, digit for digit
    PRIMARY KEY (account_id, id)                       -- a caller's own jobs, newest first
);
-- A client's name for a request, kept as long as its job.
CREATE UNIQUE INDEX jobs_idempotency_key ON punchcard.jobs (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_batch ON punchcard.jobs (account_id, batch_id) WHERE batch_id IS NOT NULL;

-- What is to be done: one thin row for each unfinished job, with all that changes while it is.
CREATE TABLE punchcard.queue (
    job_id            uuid PRIMARY KEY,
    account_id        uuid NOT NULL,
    share             smallint NOT NULL,               -- the account's share that holds the price
    kind              text NOT NULL,
    price             bigint NOT NULL,
    priority          smallint NOT NULL,
    attempt           smallint NOT NULL DEFAULT 0,     -- starts so far
    max_attempts      smallint NOT NULL,
    lease_token       bigint NOT NULL DEFAULT 0,       -- rises with each claim, never falls
    lease_expires_at  timestamptz,                     -- leased (running) until then; NULL: queued
    run_at            timestamptz NOT NULL,            -- not before
    expires_at        timestamptz NOT NULL,
    started_at        timestamptz,                     -- first claim
    error             json,                            -- of the last attempt that erred: {code, message, attempt}
    CONSTRAINT queue_attempts_are_bounded CHECK (attempt BETWEEN 0 AND max_attempts)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2);
-- Claim reads what is due by priority, then age; what is delayed lies behind `now()` and costs it nothing.
CREATE INDEX queue_due ON punchcard.queue (priority, run_at, job_id) WHERE lease_expires_at IS NULL;
-- Rescue reads what has lapsed: its lease, or its life.
CREATE INDEX queue_lapse ON punchcard.queue (coalesce(lease_expires_at, expires_at));

-- What came of it. Written once, by the statement that closed the hold; the job's row in the queue goes with it.
CREATE TABLE punchcard.outcomes (
    job_id       uuid PRIMARY KEY,                     -- one final status
    account_id   uuid NOT NULL,
    status       text NOT NULL,
    attempt      smallint NOT NULL,
    started_at   timestamptz,
    finished_at  timestamptz NOT NULL,
    output       json,
    error        json,
    CONSTRAINT outcomes_are_final CHECK (status IN ('succeeded', 'failed', 'canceled')),
    CONSTRAINT outcomes_output_iff_succeeded CHECK ((status = 'succeeded') = (output IS NOT NULL)),
    CONSTRAINT outcomes_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL)
);

CREATE TRIGGER jobs_never_change BEFORE UPDATE OR DELETE ON punchcard.jobs
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what was bought stays as it was; the ledger names it');
CREATE TRIGGER jobs_are_never_emptied BEFORE TRUNCATE ON punchcard.jobs
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger names its jobs');
CREATE TRIGGER outcomes_are_final BEFORE UPDATE OR DELETE ON punchcard.outcomes
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');
CREATE TRIGGER outcomes_are_never_emptied BEFORE TRUNCATE ON punchcard.outcomes
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');
CREATE TRIGGER queue_token_never_falls BEFORE UPDATE ON punchcard.queue
    FOR EACH ROW WHEN (NEW.lease_token < OLD.lease_token)
    EXECUTE FUNCTION punchcard.refuse_change('lease_token never falls');

-- Every job as it is now. Status words are the ADR's, and `canceled`.
CREATE VIEW punchcard.jobs_now WITH (security_invoker = on) AS
    SELECT j.id, j.account_id, j.kind,
           coalesce(o.status, CASE WHEN q.lease_expires_at IS NULL THEN 'queued' ELSE 'running' END) AS status,
           j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input, o.output,
           coalesce(o.error, q.error) AS error, coalesce(q.run_at, j.scheduled_at) AS run_at, j.created_at,
           coalesce(o.started_at, q.started_at) AS started_at, o.finished_at, j.expires_at, j.batch_id
    FROM punchcard.jobs j
    LEFT JOIN punchcard.queue q ON q.job_id = j.id
    LEFT JOIN punchcard.outcomes o ON o.job_id = j.id;

-- A UUIDv7 (RFC 9562 §5.7) from the database's clock; PostgreSQL has its own from version 18 on.
CREATE FUNCTION punchcard.uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
        PLACING substring(pg_catalog.int8send((extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

SELECT punchcard.revoke_defaults();
