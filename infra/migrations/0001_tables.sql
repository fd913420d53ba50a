-- Tables and types. Credits are whole numbers. What changes all the time is kept apart from what is kept (ADR 7).

CREATE SCHEMA IF NOT EXISTS punchcard;

REVOKE ALL ON SCHEMA punchcard FROM PUBLIC;

-- One row for each payer, in share 0. Every movement locks it, so that no two can spend the same credit; for an
-- account so busy that its buyers queue up for that lock, `spread_account` adds shares (ADR 0008).
CREATE TABLE punchcard.accounts (
    id          uuid NOT NULL,                         -- a user's id by default; any payer in general
    share       smallint NOT NULL DEFAULT 0,           -- 0 to 63
    spread      smallint NOT NULL DEFAULT 1,           -- in share 0: how many shares buyers use
    available   bigint NOT NULL DEFAULT 0,             -- free to spend
    held        bigint NOT NULL DEFAULT 0,             -- set aside for unfinished jobs
    unfinished_jobs   integer NOT NULL DEFAULT 0,      -- how many those are, free ones too,
    unfinished_bytes  bigint NOT NULL DEFAULT 0,       -- and the bytes of their inputs: what `caps` bound
    paced_until timestamptz,                           -- in share 0, where enqueues are capped: see `pass_caps`
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, share),
    CONSTRAINT accounts_never_negative CHECK (available >= 0 AND held >= 0)
) WITH (fillfactor = 50);                              -- room for HOT updates: balances change all the time

-- What bounds an account beside its credits; NULL is no bound. The row of the account 00000000-… is for all that have none
-- of their own.
CREATE TABLE punchcard.caps (
    account_id           uuid PRIMARY KEY,
    unfinished_jobs      integer CHECK (unfinished_jobs >= 0),
    unfinished_bytes     bigint CHECK (unfinished_bytes >= 0),
    enqueues_per_minute  integer CHECK (enqueues_per_minute BETWEEN 1 AND 1000000)
);

-- What moves credits. `expire` is reserved for credits with a date (ADR 0006); `shift` moves them between shares.
CREATE TYPE punchcard.entry_kind AS ENUM ('grant', 'hold', 'capture', 'release', 'adjust', 'expire', 'shift');

-- Append-only. An entry says how much moved; its kind says from where to where, so that no sign can be wrong.
-- CHECKs are kept few and short here and in the tables below: PostgreSQL parses each anew for every statement, and
-- longer ones on this table cost a third of an enqueue (ADR 0007).
CREATE TABLE punchcard.ledger (
    account_id       uuid NOT NULL,
    id               bigint GENERATED ALWAYS AS IDENTITY,
    kind             punchcard.entry_kind NOT NULL,
    amount           bigint NOT NULL,                  -- above 0; of either sign in an adjustment or a shift
    share            smallint NOT NULL DEFAULT 0,      -- of the account, whose balances follow
    available_after  bigint NOT NULL,                  -- that share's `available` once the entry is in
    held_after       bigint NOT NULL,                  -- and its `held`
    job_id           uuid,                             -- what a hold, a capture or a release is for
    idempotency_key  text,                             -- of a grant or an adjustment
    reason           text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id),                      -- an account's entries, in order
    CONSTRAINT ledger_amount_fits_kind CHECK (amount > 0 OR kind IN ('adjust', 'shift'))
);

-- At most one entry of each kind for a job: a second refund is impossible, not just unlikely.
CREATE UNIQUE INDEX ledger_one_of_a_kind_per_job ON punchcard.ledger (job_id, kind) WHERE job_id IS NOT NULL;

CREATE UNIQUE INDEX ledger_idempotency_key ON punchcard.ledger (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE FUNCTION punchcard.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on punchcard.% is refused: %', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON punchcard.ledger
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON punchcard.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

CREATE TRIGGER accounts_are_never_emptied BEFORE TRUNCATE ON punchcard.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');

CREATE TRIGGER accounts_are_kept BEFORE DELETE ON punchcard.accounts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');

-- What is kept of a job's price when one that runs, or has run, is canceled (`refuse`: it cannot be), or when
-- it fails for its input.
CREATE TYPE punchcard.charge AS ENUM ('release', 'capture', 'refuse');

CREATE TABLE punchcard.kinds (
    name                 text PRIMARY KEY CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    price                bigint NOT NULL CHECK (price BETWEEN 0 AND 1000000000000),
    metered              boolean NOT NULL DEFAULT false,  -- the price is the most; what was used is captured
    max_priority         smallint NOT NULL DEFAULT 0 CHECK (max_priority BETWEEN -10 AND 10),  -- of its jobs: before whom a caller may put them
    on_cancel            punchcard.charge NOT NULL DEFAULT 'release',
    on_input_error       punchcard.charge NOT NULL DEFAULT 'release' CHECK (on_input_error <> 'refuse'),
    max_attempts         integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 25),
    max_crashes          integer NOT NULL DEFAULT 3 CHECK (max_crashes BETWEEN 1 AND 25),
    backoff              text NOT NULL DEFAULT 'exponential' CHECK (backoff IN ('exponential', 'linear', 'fixed')),
    backoff_seconds      integer NOT NULL DEFAULT 10 CHECK (backoff_seconds BETWEEN 1 AND 86400),
    backoff_max_seconds  integer NOT NULL DEFAULT 3600 CHECK (backoff_max_seconds BETWEEN 1 AND 86400),
    backoff_delays       integer[] NOT NULL DEFAULT '{}' -- of `fixed`: after the first attempt, the second, ...
                         CHECK (cardinality(backoff_delays) <= 25 AND 0 <= ALL (backoff_delays) AND 86400 >= ALL (backoff_delays)),
    jitter               double precision NOT NULL DEFAULT 0.5 CHECK (jitter BETWEEN 0 AND 1),  -- the part of a delay left to chance
    timeout_seconds      integer NOT NULL DEFAULT 30 CHECK (timeout_seconds BETWEEN 1 AND 840),
    life_seconds         integer NOT NULL DEFAULT 604800 CHECK (life_seconds BETWEEN 60 AND 2592000),
    dispatch             text NOT NULL DEFAULT 'sqs' CHECK (dispatch IN ('poll', 'sqs')),  -- woken, where SQS is on
    url                  text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- NULL: Rust code of this name
    cancel_url           text CHECK (cancel_url ~ '^https?://' AND length(cancel_url) <= 2000),  -- told of a job that was dropped
    callback_seconds     integer NOT NULL DEFAULT 3600 CHECK (callback_seconds BETWEEN 1 AND 2592000),  -- within which who answered 202 calls back
    secret_version       integer NOT NULL DEFAULT 1 CHECK (secret_version BETWEEN 1 AND 1000000),
    retired_at           timestamptz,                  -- not sold any more; what is queued fails and is released
    CONSTRAINT kinds_fixed_has_delays CHECK ((backoff = 'fixed') = (cardinality(backoff_delays) > 0))
);

CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');

-- What was bought. Written once, by the statement that held its price, and never changed.
CREATE TABLE punchcard.jobs (
    account_id       uuid NOT NULL,
    id               uuid NOT NULL,                    -- UUIDv7: sorts by creation
    kind             text NOT NULL,
    price            bigint NOT NULL,                  -- what was held, whatever the kind costs later
    metered          boolean NOT NULL DEFAULT false,   -- and on what terms, as the kind's were
    on_cancel        punchcard.charge NOT NULL DEFAULT 'release',
    on_input_error   punchcard.charge NOT NULL DEFAULT 'release',
    priority         smallint NOT NULL,                -- -10 to 10, higher first
    max_attempts     smallint NOT NULL,
    retry            jsonb,                            -- where it differs from its kind's policy; NULL: nowhere
    scheduled_at     timestamptz NOT NULL,             -- asked for: not before
    expires_at       timestamptz NOT NULL,             -- unfinished by then: failed and released
    created_at       timestamptz NOT NULL DEFAULT now(),
    idempotency_key  text,
    request_hash     bytea,                            -- SHA-256 of what the key was used for
    batch_id         uuid,                             -- of a batch with a key: its first job, which carries it
    retry_of         uuid,                             -- the failed or canceled job that it is another try of
    metadata         jsonb,                            -- the caller's own: an object of strings
    tags             text[],
    webhook          jsonb,                            -- who is told of it, {url, events}; NULL: the account's webhook
    input            json NOT NULL,                    -- as it was sent, digit for digit
    PRIMARY KEY (account_id, id)                       -- a caller's own jobs, newest first
);

-- A client's name for a request, kept as long as its job.
CREATE UNIQUE INDEX jobs_idempotency_key ON punchcard.jobs (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- A job is retried once; who wants more retries the retry.
CREATE UNIQUE INDEX jobs_retry_of ON punchcard.jobs (retry_of) WHERE retry_of IS NOT NULL;

CREATE INDEX jobs_batch ON punchcard.jobs (account_id, batch_id) WHERE batch_id IS NOT NULL;

-- By what a caller finds their jobs: each tag, and each pair of the metadata as `key=value`.
CREATE TABLE punchcard.labels (
    account_id  uuid NOT NULL,
    label       text NOT NULL,
    job_id      uuid NOT NULL,
    PRIMARY KEY (account_id, label, job_id)
);

-- What is to be done: one thin row for each unfinished job, with all that changes while it is.
CREATE TABLE punchcard.queue (
    job_id            uuid PRIMARY KEY,
    account_id        uuid NOT NULL,
    share             smallint NOT NULL,               -- the account's share that holds the price
    kind              text NOT NULL,
    price             bigint NOT NULL,
    metered           boolean NOT NULL DEFAULT false,
    on_cancel         punchcard.charge NOT NULL DEFAULT 'release',
    on_input_error    punchcard.charge NOT NULL DEFAULT 'release',
    bytes             integer NOT NULL DEFAULT 0,      -- of the input
    priority          smallint NOT NULL,
    attempt           smallint NOT NULL DEFAULT 0,     -- starts that count: neither crashed, nor snoozed, nor returned
    max_attempts      smallint NOT NULL,
    crashes           smallint NOT NULL DEFAULT 0,     -- starts whose time was up, or whose worker never reported
    max_crashes       smallint NOT NULL DEFAULT 3,
    lease_token       bigint NOT NULL DEFAULT 0,       -- rises with each claim, never falls
    lease_expires_at  timestamptz,                     -- leased (running) until then
    waiting_until     timestamptz,                     -- running outside, without a lease: called back by then. Both NULL: queued
    run_at            timestamptz NOT NULL,            -- not before
    expires_at        timestamptz NOT NULL,
    started_at        timestamptz,                     -- first claim
    run_started_at    timestamptz,                     -- last claim
    cancel_requested_at  timestamptz,                  -- of a running job: its worker is told when it checks in
    progress_percent  smallint,                        -- of the current run, as its handler said
    progress_message  text,
    progress_at       timestamptz,
    checkpoint        json,                            -- what a run saved for the next one
    webhook           jsonb,                           -- as in jobs
    error             json,                            -- of the last attempt that erred: {code, message, attempt}
    CONSTRAINT queue_attempts_are_bounded CHECK (attempt BETWEEN 0 AND max_attempts)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2);

-- Claim reads what is due by priority, then age; what is delayed lies behind `now()` and costs it nothing.
CREATE INDEX queue_due ON punchcard.queue (priority, run_at, job_id)
    WHERE lease_expires_at IS NULL AND waiting_until IS NULL;

-- Rescue reads what has lapsed: its lease, its wait, or its life.
CREATE INDEX queue_lapse ON punchcard.queue (coalesce(lease_expires_at, waiting_until, expires_at));

-- What came of it. Written once, by the statement that closed the hold; the job's row in the queue goes with it.
CREATE TABLE punchcard.outcomes (
    job_id       uuid PRIMARY KEY,                     -- one final status
    account_id   uuid NOT NULL,
    status       text NOT NULL,
    captured     bigint NOT NULL DEFAULT 0,            -- of its price; the rest was released
    attempt      smallint NOT NULL,
    crashes      smallint NOT NULL DEFAULT 0,
    lease_token  bigint NOT NULL DEFAULT 0,            -- of its last claim
    started_at   timestamptz,
    run_started_at  timestamptz,                       -- of the run that ended it; NULL: none did
    finished_at  timestamptz NOT NULL,
    output       json,
    error        json,
    CONSTRAINT outcomes_are_final CHECK (status IN ('succeeded', 'failed', 'canceled')),
    CONSTRAINT outcomes_output_iff_succeeded CHECK ((status = 'succeeded') = (output IS NOT NULL)),
    CONSTRAINT outcomes_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL)
);

-- The dead letters, to be found and retried.
CREATE INDEX outcomes_failed ON punchcard.outcomes (finished_at, job_id) WHERE status = 'failed';

-- The runs that did not end their job; the one that did is in its outcome. Of a job that is put off again and again, the
-- first 1,000.
CREATE TABLE punchcard.attempts (
    job_id      uuid NOT NULL,
    number      bigint NOT NULL,                       -- the lease_token of its claim
    attempt     smallint NOT NULL,                     -- what the policy counted it as
    ended       text NOT NULL CHECK (ended IN ('retry', 'snooze', 'yield', 'crash')),
    started_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    error       json,
    PRIMARY KEY (job_id, number)
);

CREATE TRIGGER jobs_never_change BEFORE UPDATE OR DELETE ON punchcard.jobs
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what was bought stays as it was; the ledger names it');

CREATE TRIGGER jobs_are_never_emptied BEFORE TRUNCATE ON punchcard.jobs
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger names its jobs');

CREATE TRIGGER outcomes_are_final BEFORE UPDATE OR DELETE ON punchcard.outcomes
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');

CREATE TRIGGER outcomes_are_never_emptied BEFORE TRUNCATE ON punchcard.outcomes
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');

CREATE TRIGGER labels_never_change BEFORE UPDATE OR DELETE ON punchcard.labels
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what was bought stays as it was');

CREATE TRIGGER attempts_never_change BEFORE UPDATE OR DELETE ON punchcard.attempts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what happened has happened');

CREATE TRIGGER queue_token_never_falls BEFORE UPDATE ON punchcard.queue
    FOR EACH ROW WHEN (NEW.lease_token < OLD.lease_token)
    EXECUTE FUNCTION punchcard.refuse_change('lease_token never falls');

-- Where an account is told of its jobs, but for those that name a webhook of their own. Its secret is derived (signing.rs) and
-- signs for both; the last one still does for a day after it was rotated.
CREATE TABLE punchcard.webhooks (
    account_id      uuid PRIMARY KEY,
    url             text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- NULL: none
    events          text[] NOT NULL DEFAULT '{job.succeeded,job.failed,job.canceled}'
                    CHECK (events <@ ARRAY['job.running', 'job.succeeded', 'job.failed', 'job.canceled']),
    secret_version  integer NOT NULL DEFAULT 1,
    rotated_at      timestamptz,
    disabled_at     timestamptz                        -- it answered 410 (Gone)
);

-- The outbox: what is to be said of a job, written by the statement that did it, and said until somebody has heard.
CREATE TABLE punchcard.deliveries (
    id            uuid PRIMARY KEY,                    -- the message's `webhook-id`, the same each time it is sent
    account_id    uuid NOT NULL,
    job_id        uuid NOT NULL,
    event         text NOT NULL,                       -- `cancel` is for the kind's cancel_url
    url           text,                                -- NULL: the account's, as it is when it is sent
    attempt       smallint NOT NULL DEFAULT 0,         -- how often it was taken to be sent; each time is recorded once
    settled       smallint NOT NULL DEFAULT 0,         -- the last attempt whose result is recorded
    put_back      smallint NOT NULL DEFAULT 0,         -- how often of these it was not sent, for no fault of its receiver's
    next_at       timestamptz,                         -- not before; while it is being sent, when that is given up; NULL: never again
    created_at    timestamptz NOT NULL DEFAULT now(),
    delivered_at  timestamptz,
    error         text,                                -- why the last attempt failed
    gone          boolean NOT NULL DEFAULT false       -- whoever is there answered 410 (Gone): they hear no more of this job
);

CREATE INDEX deliveries_due ON punchcard.deliveries (next_at) WHERE next_at IS NOT NULL;

-- Whose are due, account by account.
CREATE INDEX deliveries_waiting ON punchcard.deliveries (account_id, next_at) WHERE next_at IS NOT NULL;

CREATE INDEX deliveries_job ON punchcard.deliveries (job_id, id);

-- What was sent and not heard, for the operator.
CREATE INDEX deliveries_unheard ON punchcard.deliveries (id) WHERE delivered_at IS NULL AND error IS NOT NULL;

CREATE TABLE punchcard.credit_source (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    balances        text NOT NULL,      -- the team's table, and in it the columns of account and balance
    account_column  text NOT NULL,
    balance_column  text NOT NULL,
    mover           text,               -- the team's function that moves credits; NULL: we update the table
    read_balance    text NOT NULL,      -- as SQL: $1 is the account
    move_balance    text NOT NULL,      -- as SQL: $2 is the amount, below 0 to charge
    search_path     text NOT NULL,      -- what the team's function expects
    set_at          timestamptz NOT NULL DEFAULT now()
);

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
