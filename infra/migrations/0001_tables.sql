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
    entries     bigint NOT NULL DEFAULT 0,             -- the number of the share's last entry
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

-- Entries of the ledger that are of no job's making: append-only. A hold is its job's row, a capture and a release are its
-- outcome's (ADR 16). All of them are numbered 1, 2, 3, … for each account and share, without a gap, by its row's `entries`.
-- An entry says how much moved; its kind says from where to where, so that no sign can be wrong.
CREATE TABLE punchcard.movements (
    account_id       uuid NOT NULL,
    share            smallint NOT NULL,                -- of the account, whose balances follow
    entry            bigint NOT NULL,                  -- its number there
    amount           bigint NOT NULL,                  -- above 0; of either sign in an adjustment or a shift
    available_after  bigint NOT NULL,                  -- that share's `available` once the entry is in
    held_after       bigint NOT NULL,                  -- and its `held`
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    job_id           uuid,                             -- what an adjustment gives back for
    kind             punchcard.entry_kind NOT NULL,
    idempotency_key  text,                             -- of a grant or an adjustment
    reason           text,
    PRIMARY KEY (account_id, share, entry),
    CONSTRAINT movements_are_of_no_job CHECK (kind IN ('grant', 'adjust', 'shift')),
    CONSTRAINT movements_amount_fits_kind CHECK (amount > 0 OR kind IN ('adjust', 'shift')),
    CONSTRAINT movements_have_keys CHECK ((idempotency_key IS NULL) = (kind = 'shift')),
    CONSTRAINT movements_name_jobs_to_give_back CHECK (job_id IS NULL OR (kind = 'adjust' AND amount > 0))
);
-- Nothing moves twice for one key.
CREATE UNIQUE INDEX movements_idempotency_key ON punchcard.movements (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- A second refund is impossible, not just unlikely.
CREATE UNIQUE INDEX movements_one_refund_per_job ON punchcard.movements (job_id) WHERE job_id IS NOT NULL;
-- The ledger's pages, by time. What was shifted between shares is nothing to their reader.
CREATE INDEX movements_by_time ON punchcard.movements (account_id, created_at) WHERE kind <> 'shift';

CREATE FUNCTION punchcard.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on punchcard.% is refused: %', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;

COMMENT ON FUNCTION punchcard.refuse_change() IS 'Refuses what would rewrite history, and says why.';

CREATE TRIGGER movements_are_append_only BEFORE UPDATE OR DELETE ON punchcard.movements
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

CREATE TRIGGER movements_are_never_emptied BEFORE TRUNCATE ON punchcard.movements
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
    terms_id             integer NOT NULL,             -- on what is bought now: `kind_terms`, kept by a trigger
    retired_at           timestamptz,                  -- not sold any more; what is queued fails and is released
    CONSTRAINT kinds_fixed_has_delays CHECK ((backoff = 'fixed') = (cardinality(backoff_delays) > 0))
);

CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');

-- On what a job was bought: what its kind said of money and attempts then, a row for each change of it. What only says how
-- a job is run (its target, time limit, back-off) is the kind's of now, so that it can be mended for what is queued.
CREATE TABLE punchcard.kind_terms (
    id              integer PRIMARY KEY,
    kind            text NOT NULL,
    price           bigint NOT NULL,
    metered         boolean NOT NULL,
    on_cancel       punchcard.charge NOT NULL,
    on_input_error  punchcard.charge NOT NULL,
    max_attempts    smallint NOT NULL,
    max_crashes     smallint NOT NULL,
    life_seconds    integer NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER kind_terms_never_change BEFORE UPDATE OR DELETE ON punchcard.kind_terms
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs were bought on these terms');

-- A kind whose terms have changed gets a new row of them. Numbered by the table itself, which no restore sets back.
CREATE FUNCTION punchcard.set_terms() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT t.id INTO NEW.terms_id
    FROM (SELECT t.* FROM punchcard.kind_terms t WHERE t.kind = NEW.name ORDER BY t.id DESC LIMIT 1) t
    WHERE (t.kind, t.price, t.metered, t.on_cancel, t.on_input_error, t.max_attempts, t.max_crashes, t.life_seconds)
          = (NEW.name, NEW.price, NEW.metered, NEW.on_cancel, NEW.on_input_error, NEW.max_attempts, NEW.max_crashes,
             NEW.life_seconds);
    IF NOT FOUND THEN
        LOCK TABLE punchcard.kind_terms IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO punchcard.kind_terms (id, kind, price, metered, on_cancel, on_input_error, max_attempts, max_crashes,
                                          life_seconds)
        SELECT coalesce(max(t.id), 0) + 1, NEW.name, NEW.price, NEW.metered, NEW.on_cancel, NEW.on_input_error,
               NEW.max_attempts, NEW.max_crashes, NEW.life_seconds
        FROM punchcard.kind_terms t
        RETURNING id INTO NEW.terms_id;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION punchcard.set_terms() IS 'Gives a kind whose terms have changed a new row of them.';
CREATE TRIGGER kinds_have_terms BEFORE INSERT OR UPDATE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.set_terms();

-- What was bought. Written once, by the statement that held its price, and never changed: it is the hold.
-- CHECKs are kept few and short here and in the tables below: PostgreSQL parses each anew for every statement (ADR 7).
CREATE TABLE punchcard.jobs (
    account_id       uuid NOT NULL,
    id               uuid NOT NULL,                    -- UUIDv7: sorts by creation
    price            bigint NOT NULL,                  -- what was held, whatever the kind costs later
    entry            bigint NOT NULL,                  -- the hold's number in the account's share,
    available_after  bigint NOT NULL,                  -- and the share's balances once it was in
    held_after       bigint NOT NULL,
    scheduled_at     timestamptz NOT NULL,             -- asked for: not before
    expires_at       timestamptz NOT NULL,             -- unfinished by then: failed and released
    created_at       timestamptz NOT NULL DEFAULT now(),
    terms_id         integer,                          -- on what it was bought; NULL: of an old system
    share            smallint NOT NULL,                -- of the account, which holds the price
    priority         smallint NOT NULL,                -- -10 to 10, higher first
    max_attempts     smallint NOT NULL,
    kind             text NOT NULL,
    batch_id         uuid,                             -- of a batch with a key: its first job
    retry_of         uuid,                             -- the failed or canceled job that it is another try of
    retry            jsonb,                            -- where it differs from its kind's policy; NULL: nowhere
    metadata         jsonb,                            -- the caller's own: an object of strings
    tags             text[],
    webhook          jsonb,                            -- who is told of it, {url, events}; NULL: the account's webhook
    input            json NOT NULL,                    -- as it was sent, digit for digit
    PRIMARY KEY (account_id, id)                       -- a caller's own jobs, newest first
);

-- A client's names for their requests, whatever has become of what these bought.
CREATE TABLE punchcard.idempotency_keys (
    account_id    uuid NOT NULL,
    key           uuid NOT NULL,                       -- `key_digest`
    request_hash  uuid NOT NULL,                       -- of what the key was used for
    job_id        uuid NOT NULL,                       -- what it bought: a job, or a batch from here on
    last_job_id   uuid,                                -- to here
    PRIMARY KEY (account_id, key)
);

-- A job is retried once; who wants more retries the retry.
CREATE TABLE punchcard.retries (
    job_id      uuid PRIMARY KEY,
    retried_as  uuid NOT NULL
);

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
    price             bigint NOT NULL,
    lease_token       bigint NOT NULL DEFAULT 0,       -- rises with each claim, never falls
    lease_expires_at  timestamptz,                     -- leased (running) until then
    waiting_until     timestamptz,                     -- running outside, without a lease: called back by then. Both NULL: queued
    run_at            timestamptz NOT NULL,            -- not before
    expires_at        timestamptz NOT NULL,
    started_at        timestamptz,                     -- first claim
    run_started_at    timestamptz,                     -- last claim
    terms_id          integer NOT NULL,                -- on what it was bought
    bytes             integer NOT NULL DEFAULT 0,      -- of the input
    share             smallint NOT NULL,               -- the account's share that holds the price
    priority          smallint NOT NULL,
    attempt           smallint NOT NULL DEFAULT 0,     -- starts that count: neither crashed, nor snoozed, nor returned
    max_attempts      smallint NOT NULL,
    crashes           smallint NOT NULL DEFAULT 0,     -- starts whose time was up, or whose worker never reported
    kind              text NOT NULL,
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

CREATE TYPE punchcard.final_status AS ENUM ('succeeded', 'failed', 'canceled');

-- What came of it. Written once, by the statement that closed the hold; the job's row in the queue goes with it. It is the
-- capture, and the release of what is left of the price.
CREATE TABLE punchcard.outcomes (
    job_id       uuid PRIMARY KEY,                     -- one final status, one end of the hold
    account_id   uuid NOT NULL,
    finished_at  timestamptz NOT NULL,
    captured     bigint NOT NULL,                      -- of its price; the rest was released
    entry        bigint,                               -- its number in the account's share; NULL: `deferred_entries` has it,
    available_after  bigint,                           -- and the share's balances once it was in
    held_after   bigint,
    lease_token  bigint NOT NULL DEFAULT 0,            -- of its last claim
    started_at   timestamptz,
    run_started_at  timestamptz,                       -- of the run that ended it; NULL: none did
    share        smallint NOT NULL,                    -- of the account, as in jobs
    attempt      smallint NOT NULL,
    crashes      smallint NOT NULL DEFAULT 0,
    status       punchcard.final_status NOT NULL,
    output       json,
    error        json,
    CONSTRAINT outcomes_capture_no_debt CHECK (captured >= 0),
    CONSTRAINT outcomes_output_iff_succeeded CHECK ((status = 'succeeded') = (output IS NOT NULL)),
    CONSTRAINT outcomes_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL)
);

-- A job that ends, on its way through `settle`.
CREATE TYPE punchcard.ended_job AS (
    job_id uuid, price bigint, captured bigint, bytes integer, lease_token bigint, started_at timestamptz,
    run_started_at timestamptz, attempt smallint, crashes smallint, status punchcard.final_status, output json, error json);

-- The ledger's pages, by time.
CREATE INDEX outcomes_by_time ON punchcard.outcomes (account_id, finished_at);

-- What jobs moved whose account somebody held when they ended: final at once, and entered into the balances by whoever holds
-- the account next (`fold_entries`).
CREATE TABLE punchcard.deferred_entries (
    job_id           uuid PRIMARY KEY,
    account_id       uuid NOT NULL,
    price            bigint NOT NULL,
    captured         bigint NOT NULL,
    entry            bigint,                           -- NULL: waits
    available_after  bigint,
    held_after       bigint,
    bytes            integer NOT NULL,                 -- of the input
    share            smallint NOT NULL
);
CREATE INDEX deferred_entries_waiting ON punchcard.deferred_entries (account_id, share) WHERE entry IS NULL;

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

CREATE TRIGGER retries_never_change BEFORE UPDATE OR DELETE ON punchcard.retries
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a job is retried once');

CREATE TRIGGER deferred_entries_are_kept BEFORE DELETE ON punchcard.deferred_entries
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

CREATE TRIGGER deferred_entries_are_entered_once BEFORE UPDATE ON punchcard.deferred_entries
    FOR EACH ROW WHEN (OLD.entry IS NOT NULL) EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

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
