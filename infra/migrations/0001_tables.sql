-- Tables and types. Credits are whole numbers. What changes all the time is kept apart from what is kept (ADR
-- 7), and what grows with each job is kept by the month in which that was bought, as its id tells (ADR 19).
-- What is said before a table, and after or below a column, is its comment in the catalog: `migrate` sets it.

CREATE SCHEMA IF NOT EXISTS punchcard;

REVOKE ALL ON SCHEMA punchcard FROM PUBLIC;

-- For triggers that keep history as it was: refuses the change, and says why.
CREATE FUNCTION punchcard.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: %', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;

-- ---------------------------------------------------------------------------------------------- credits

-- Who pays, and what they have: one row for each payer, in share 0. Every movement locks it, so that no two
-- can spend the same credit; for an account so busy that its buyers queue up for that lock, `spread_account`
-- adds shares (ADR 8).
CREATE TABLE punchcard.accounts (
    id                uuid NOT NULL,                  -- a user's id by default; any payer in general
    share             smallint NOT NULL DEFAULT 0,    -- 0 to 63
    spread            smallint NOT NULL DEFAULT 1,    -- in share 0: how many shares buyers use; in each: 0
                                                      -- once the account is closed (`erasures`)
    available         bigint NOT NULL DEFAULT 0,      -- free to spend
    held              bigint NOT NULL DEFAULT 0,      -- set aside for unfinished jobs
    entries           bigint NOT NULL DEFAULT 0,      -- the number of the share's last entry
    unfinished_jobs   integer NOT NULL DEFAULT 0,     -- how many are unfinished, free ones too
    unfinished_bytes  bigint NOT NULL DEFAULT 0,      -- the bytes of the unfinished jobs' inputs
    paced_until       timestamptz,                    -- in share 0, where enqueues are limited:
                                                      -- see `pass_limits`
    created_at        timestamptz NOT NULL DEFAULT now(),  -- of its first grant, or purchase
    PRIMARY KEY (id, share),
    CONSTRAINT accounts_never_negative CHECK (available >= 0 AND held >= 0)
) WITH (fillfactor = 50);  -- room for HOT updates: balances change all the time

CREATE TRIGGER accounts_are_kept BEFORE DELETE ON punchcard.accounts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');
CREATE TRIGGER accounts_are_never_emptied BEFORE TRUNCATE ON punchcard.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');

-- What bounds an account beside its credits; NULL is no bound.
CREATE TABLE punchcard.limits (
    account_id           uuid PRIMARY KEY,            -- 00000000-…: all that have no row of their own
    unfinished_jobs      integer CHECK (unfinished_jobs >= 0),  -- how many it may have unfinished
    unfinished_bytes     bigint CHECK (unfinished_bytes >= 0),  -- how many bytes of input these may have
    enqueues_per_minute  integer                      -- how many jobs it may buy in a minute
                         CHECK (enqueues_per_minute BETWEEN 1 AND 1000000)
);

-- What moves credits. `expire` takes what is left of a grant with a date (ADR 23); `shift` moves credits
-- between shares; `carried` is the sum of entries that are kept no more (ADR 20).
CREATE TYPE punchcard.entry_kind AS ENUM (
    'grant', 'hold', 'capture', 'release', 'adjust', 'expire', 'shift', 'carried');

-- Entries of the ledger that are of no job's making: append-only. A hold is its job's row, a capture and a
-- release are its outcome's (ADR 16). All of them are numbered 1, 2, 3, … for each account and share, without
-- a gap, by its row's `entries`. An entry says how much moved; its kind says from where to where, so that no
-- sign can be wrong.
CREATE TABLE punchcard.movements (
    account_id       uuid NOT NULL,                   -- whose balances it moved
    share            smallint NOT NULL,               -- of which share of the account
    entry            bigint NOT NULL,                 -- its number there
    amount           bigint NOT NULL,                 -- above 0 in a grant, below in an expiry
    available_after  bigint NOT NULL,                 -- the share's `available` once the entry is in
    held_after       bigint NOT NULL,                 -- the share's `held` once the entry is in
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),  -- while its account was locked
    job_id           uuid,                            -- what an adjustment gives back for
    kind             punchcard.entry_kind NOT NULL,   -- grant, adjust, expire or shift
    idempotency_key  text,                            -- of all but a shift:
                                                      -- nothing moves twice for one
    reason           text,                            -- why, in the words of whoever moved it
    PRIMARY KEY (account_id, share, entry),
    CONSTRAINT movements_are_of_no_job CHECK (kind IN ('grant', 'adjust', 'expire', 'shift')),
    CONSTRAINT movements_amount_fits_kind CHECK (
        CASE kind WHEN 'grant' THEN amount > 0 WHEN 'expire' THEN amount < 0 ELSE true END),
    CONSTRAINT movements_have_keys CHECK ((idempotency_key IS NULL) = (kind = 'shift')),
    CONSTRAINT movements_name_jobs_to_give_back CHECK (job_id IS NULL OR (kind = 'adjust' AND amount > 0))
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01,
        autovacuum_analyze_scale_factor = 0.01);

-- Nothing moves twice for one key.
CREATE UNIQUE INDEX movements_idempotency_key ON punchcard.movements (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- A second refund is impossible, not just unlikely.
CREATE UNIQUE INDEX movements_one_refund_per_job ON punchcard.movements (job_id) WHERE job_id IS NOT NULL;
-- The ledger's pages, by time (`find_entries`). What was shifted between shares is nothing to their reader.
CREATE INDEX movements_by_time ON punchcard.movements (account_id, created_at) WHERE kind <> 'shift';

CREATE TRIGGER movements_are_append_only BEFORE UPDATE ON punchcard.movements
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER movements_are_never_emptied BEFORE TRUNCATE ON punchcard.movements
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- Grants whose credits lapse: what is left of each as of when the account was last dealt with (`dated_left`
-- says what is left now). What is spent is taken from what lapses first.
CREATE TABLE punchcard.dated_grants (
    account_id  uuid NOT NULL,                        -- whose
    entry       bigint NOT NULL,                      -- the number of its movement, in share 0
    expires_at  timestamptz NOT NULL,                 -- when what is left lapses
    look_at     timestamptz NOT NULL,                 -- when upkeep looks at it: then, and as long as some
                                                      -- of it is held, again
    left_over   bigint NOT NULL CHECK (left_over >= 0),  -- what was not spent of it
    PRIMARY KEY (account_id, entry)
);

-- What lapses (`expire_credits`).
CREATE INDEX dated_grants_due ON punchcard.dated_grants (look_at) WHERE left_over > 0;

-- The accounts that have grants with a date, as they were when what they had spent was last dealt to these.
CREATE TABLE punchcard.dated_accounts (
    account_id  uuid PRIMARY KEY,                     -- whose
    total       bigint NOT NULL,                      -- what it had, free and held
    entry       bigint NOT NULL,                      -- the number of its last entry in share 0
    dealt_at    timestamptz NOT NULL,                 -- when that was
    error       text                                  -- why it could not be dealt with since
);

-- What waits, for health and the doctor.
CREATE INDEX dated_accounts_waiting ON punchcard.dated_accounts (dealt_at) WHERE error IS NOT NULL;

-- What jobs moved whose account somebody held when they ended: final at once, and entered into the balances
-- by whoever holds the account next (`fold_entries`).
CREATE TABLE punchcard.deferred_entries (
    job_id           uuid PRIMARY KEY,                -- whose end it is
    account_id       uuid NOT NULL,                   -- who pays
    price            bigint NOT NULL,                 -- what is held no more
    captured         bigint NOT NULL,                 -- of the price; the rest is released
    entry            bigint,                          -- its number in the account's share; NULL: it waits
    available_after  bigint,                          -- the share's `available` once it was entered
    held_after       bigint,                          -- the share's `held` once it was entered
    bytes            integer NOT NULL,                -- of the job's input, which counts no more
    share            smallint NOT NULL                -- of the account, which held the price
);

-- What waits, for whoever enters it (`fold_entries`, `enter_deferred`) and whoever counts it (`balances`).
CREATE INDEX deferred_entries_waiting ON punchcard.deferred_entries (account_id, share) WHERE entry IS NULL;

CREATE TRIGGER deferred_entries_are_never_emptied BEFORE TRUNCATE ON punchcard.deferred_entries
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER deferred_entries_are_entered_once BEFORE UPDATE ON punchcard.deferred_entries
    FOR EACH ROW WHEN (OLD.entry IS NOT NULL)
    EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- Credits that the team keeps in a table of its own, if it does (ADR 10).
CREATE TABLE punchcard.credit_source (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),  -- there is one source, or none
    balances        text NOT NULL,                    -- the team's table
    account_column  text NOT NULL,                    -- its column of accounts
    balance_column  text NOT NULL,                    -- its column of balances
    mover           text,                             -- the team's function that moves credits;
                                                      -- NULL: we update the table
    read_balance    text NOT NULL,                    -- as SQL: $1 is the account
    move_balance    text NOT NULL,                    -- as SQL: $2 is the amount, below 0 to charge
    search_path     text NOT NULL,                    -- what the team's function expects
    set_at          timestamptz NOT NULL DEFAULT now()  -- since when credits come from there
);

-- ---------------------------------------------------------------------------------------------- erasure

-- Accounts that are to be forgotten, and those that are (ADR 21): closed for good from the moment they are
-- here. Their entries stay.
CREATE TABLE punchcard.erasures (
    account_id  uuid PRIMARY KEY,                     -- who is forgotten
    asked_at    timestamptz NOT NULL DEFAULT now(),   -- since when it is closed
    done_at     timestamptz,                          -- when nothing of its payloads was left
    look_at     timestamptz NOT NULL DEFAULT now(),   -- when to go on, while a job of it is unfinished
    after_id    uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- behind which of its jobs to
                                                      -- go on
    jobs        bigint NOT NULL DEFAULT 0,            -- how many lost their payloads so far
    keys        bigint NOT NULL DEFAULT 0,            -- how many idempotency keys are deleted
    messages    bigint NOT NULL DEFAULT 0,            -- how many messages were never sent
    waits_for   uuid,                                 -- a job that was unfinished, since it ran, or cannot be
                                                      -- canceled
    held_id     uuid,                                 -- the first job that somebody was at when it was to be
                                                      -- canceled: from there on anew
    error       text                                  -- what it waits for, or why a step failed
);

-- What is to be done (`erase_payloads`).
CREATE INDEX erasures_open ON punchcard.erasures (asked_at) WHERE done_at IS NULL;

CREATE TRIGGER erasures_are_kept BEFORE DELETE ON punchcard.erasures
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('an erased account is closed for good');
CREATE TRIGGER erasures_are_never_emptied BEFORE TRUNCATE ON punchcard.erasures
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('an erased account is closed for good');

-- For triggers of what is kept: lets go of what an account's users and workers wrote while it is being
-- erased, and of nothing else.
CREATE FUNCTION punchcard.refuse_unless_erased() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept record;      -- the row as it was, but for what may be cleared
    whose uuid;
    cleared boolean;
BEGIN
    kept := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    IF TG_ARGV[0] = 'jobs' THEN
        whose := OLD.account_id;
        cleared := NEW.input::text = '{}' AND NEW.metadata IS NULL AND NEW.tags IS NULL
                   AND NEW.webhook IS NULL;
        kept.input := OLD.input;
        kept.metadata := OLD.metadata;
        kept.tags := OLD.tags;
        kept.webhook := OLD.webhook;
    ELSIF TG_ARGV[0] = 'outcomes' THEN
        whose := OLD.account_id;
        cleared := coalesce(NEW.output::text = 'null', OLD.output IS NULL)
                   AND NEW.error::text IS NOT DISTINCT FROM punchcard.erased_error(OLD.error)::text;
        kept.output := OLD.output;
        kept.error := OLD.error;
    ELSIF TG_ARGV[0] = 'attempts' THEN
        whose := (SELECT o.account_id FROM punchcard.outcomes o WHERE o.job_id = OLD.job_id);
        cleared := NEW.error::text = punchcard.erased_error(OLD.error)::text;
        kept.error := OLD.error;
    ELSE  -- labels, deleted
        whose := OLD.account_id;
        cleared := TG_OP = 'DELETE';
    END IF;
    IF cleared AND kept::text = OLD::text
        AND EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = whose AND e.done_at IS NULL)
    THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION '% on %.% is refused: %', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[1]
        USING ERRCODE = 'restrict_violation';
END $$;

-- ------------------------------------------------------------------------------------------------ kinds

-- What is kept of a job's price when one that runs, or has run, is canceled (`refuse`: it cannot be), or when
-- it fails for its input.
CREATE TYPE punchcard.charge AS ENUM ('release', 'capture', 'refuse');

-- What can be bought, as it is offered now: `punchcard apply` writes it.
CREATE TABLE punchcard.kinds (
    name                 text COLLATE "C" PRIMARY KEY -- as buyers send it
                         CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    price                bigint NOT NULL              -- in credits, held at once
                         CHECK (price BETWEEN 0 AND 1000000000000),
    metered              boolean NOT NULL DEFAULT false,  -- the price is the most; what was used is captured
    max_priority         smallint NOT NULL DEFAULT 0  -- before whom a caller may put its jobs
                         CHECK (max_priority BETWEEN -10 AND 10),
    on_cancel            punchcard.charge NOT NULL DEFAULT 'release',  -- what is kept once a job runs,
                                                                       -- or has run
    on_input_error       punchcard.charge NOT NULL DEFAULT 'release'  -- what is kept if the input is to blame
                         CHECK (on_input_error <> 'refuse'),
    max_attempts         integer NOT NULL DEFAULT 3   -- errors until it fails
                         CHECK (max_attempts BETWEEN 1 AND 25),
    max_crashes          integer NOT NULL DEFAULT 3   -- crashes until it fails
                         CHECK (max_crashes BETWEEN 1 AND 25),
    backoff              text NOT NULL DEFAULT 'exponential'  -- how the delay grows from attempt to attempt
                         CHECK (backoff IN ('exponential', 'linear', 'fixed')),
    backoff_seconds      integer NOT NULL DEFAULT 10  -- the first delay
                         CHECK (backoff_seconds BETWEEN 1 AND 86400),
    backoff_max_seconds  integer NOT NULL DEFAULT 3600  -- the longest delay
                         CHECK (backoff_max_seconds BETWEEN 1 AND 86400),
    backoff_delays       integer[] NOT NULL DEFAULT '{}'  -- of `fixed`: after the first attempt,
                                                          -- the second, …
                         CHECK (cardinality(backoff_delays) <= 25 AND 0 <= ALL (backoff_delays)
                                AND 86400 >= ALL (backoff_delays)),
    jitter               double precision NOT NULL DEFAULT 0.5  -- the part of a delay that is left to chance
                         CHECK (jitter BETWEEN 0 AND 1),
    timeout_seconds      integer NOT NULL DEFAULT 30 CHECK (timeout_seconds BETWEEN 1 AND 840),  -- of one run
    life_seconds         integer NOT NULL DEFAULT 604800  -- unfinished for so long, a job fails
                         CHECK (life_seconds BETWEEN 60 AND 2592000),
    dispatch             text NOT NULL DEFAULT 'sqs'  -- `sqs`: workers are woken for it, where SQS is on
                         CHECK (dispatch IN ('poll', 'sqs')),
    url                  text                         -- NULL: Rust code of this name
                         CHECK (url ~ '^https?://' AND length(url) <= 2000),
    cancel_url           text                         -- told of a job that was dropped while somebody
                                                      -- works on it
                         CHECK (cancel_url ~ '^https?://' AND length(cancel_url) <= 2000),
    callback_seconds     integer NOT NULL DEFAULT 3600  -- within which who answered 202 calls back
                         CHECK (callback_seconds BETWEEN 1 AND 2592000),
    secret_version       integer NOT NULL DEFAULT 1   -- of the secret that requests to the target
                                                      -- are signed by
                         CHECK (secret_version BETWEEN 1 AND 1000000),
    terms_id             integer NOT NULL,            -- on what is bought now: `kind_terms`,
                                                      -- kept by a trigger
    retired_at           timestamptz,                 -- not sold any more;
                                                      -- what is queued fails and is released
    CONSTRAINT kinds_fixed_has_delays CHECK ((backoff = 'fixed') = (cardinality(backoff_delays) > 0))
);

CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');

-- On what a job was bought: what its kind said of money and attempts then, a row for each change of it (ADR
-- 17). What only says how a job is run (its target, time limit, back-off) is the kind's of now, so that it
-- can be mended for what is queued.
CREATE TABLE punchcard.kind_terms (
    id              integer PRIMARY KEY,              -- numbered by the table itself: no restore sets it back
    kind            text COLLATE "C" NOT NULL,        -- whose terms
    price           bigint NOT NULL,                  -- as in kinds
    metered         boolean NOT NULL,                 -- as in kinds
    on_cancel       punchcard.charge NOT NULL,        -- as in kinds
    on_input_error  punchcard.charge NOT NULL,        -- as in kinds
    max_attempts    smallint NOT NULL,                -- as in kinds; a job may ask for fewer
    max_crashes     smallint NOT NULL,                -- as in kinds
    life_seconds    integer NOT NULL,                 -- as in kinds
    created_at      timestamptz NOT NULL DEFAULT now()  -- since when
);

CREATE TRIGGER kind_terms_are_never_emptied BEFORE TRUNCATE ON punchcard.kind_terms
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('jobs were bought on these terms');
CREATE TRIGGER kind_terms_never_change BEFORE UPDATE OR DELETE ON punchcard.kind_terms
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs were bought on these terms');

-- For the trigger on kinds: gives a kind whose terms have changed a new row of them.
CREATE FUNCTION punchcard.set_terms() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT t.id INTO NEW.terms_id
    FROM (SELECT t.* FROM punchcard.kind_terms t WHERE t.kind = NEW.name ORDER BY t.id DESC LIMIT 1) t
    WHERE (t.kind, t.price, t.metered, t.on_cancel, t.on_input_error, t.max_attempts, t.max_crashes,
           t.life_seconds)
          = (NEW.name, NEW.price, NEW.metered, NEW.on_cancel, NEW.on_input_error, NEW.max_attempts,
             NEW.max_crashes, NEW.life_seconds);
    IF NOT FOUND THEN
        LOCK TABLE punchcard.kind_terms IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO punchcard.kind_terms (id, kind, price, metered, on_cancel, on_input_error, max_attempts,
                                          max_crashes, life_seconds)
        SELECT coalesce(max(t.id), 0) + 1, NEW.name, NEW.price, NEW.metered, NEW.on_cancel,
               NEW.on_input_error, NEW.max_attempts, NEW.max_crashes, NEW.life_seconds
        FROM punchcard.kind_terms t
        RETURNING id INTO NEW.terms_id;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER kinds_have_terms BEFORE INSERT OR UPDATE ON punchcard.kinds
    FOR EACH ROW EXECUTE FUNCTION punchcard.set_terms();

-- ------------------------------------------------------------------------------------------------- jobs

-- What was bought. Written once, by the statement that held its price, and never changed: it is the hold.
-- CHECKs are kept few and short here and in the tables below: PostgreSQL parses each anew for every statement
-- (ADR 7).
CREATE TABLE punchcard.jobs (
    account_id       uuid NOT NULL,                   -- who bought it
    id               uuid NOT NULL,                   -- UUIDv7: sorts by creation
    price            bigint NOT NULL,                 -- what was held, whatever the kind costs later
    entry            bigint NOT NULL,                 -- the hold's number in the account's share
    available_after  bigint NOT NULL,                 -- the share's `available` once the hold was in
    held_after       bigint NOT NULL,                 -- the share's `held` once the hold was in
    scheduled_at     timestamptz,                     -- asked for: not before; NULL: at once
    expires_at       timestamptz NOT NULL,            -- unfinished by then: failed and released
    created_at       timestamptz NOT NULL DEFAULT now(),  -- when it was bought
    terms_id         integer,                         -- on what it was bought; NULL: of an old system
    share            smallint NOT NULL,               -- of the account, which holds the price
    priority         smallint NOT NULL,               -- -10 to 10, higher first
    max_attempts     smallint NOT NULL,               -- its terms', or fewer
    kind             text COLLATE "C" NOT NULL,       -- of what it is one
    batch_id         uuid,                            -- of a batch with a key: its first job
    retry_of         uuid,                            -- the failed or canceled job that it is another try of
    retry            jsonb,                           -- where it differs from its kind's policy;
                                                      -- NULL: nowhere
    metadata         jsonb,                           -- the caller's own: an object of strings
    tags             text[],                          -- the caller's own
    webhook          jsonb,                           -- who is told of it, {url, events};
                                                      -- NULL: the account's webhook
    input            json NOT NULL,                   -- as it was sent, digit for digit
    PRIMARY KEY (account_id, id)                      -- a caller's own jobs, newest first
) PARTITION BY RANGE (id);

CREATE TRIGGER jobs_are_kept BEFORE DELETE ON punchcard.jobs
    FOR EACH ROW
    EXECUTE FUNCTION punchcard.refuse_change('what was bought stays as it was; it is in the ledger');
CREATE TRIGGER jobs_never_change BEFORE UPDATE ON punchcard.jobs
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased(
        'jobs', 'what was bought stays as it was; it is in the ledger');
CREATE TRIGGER jobs_are_never_emptied BEFORE TRUNCATE ON punchcard.jobs
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('what was bought is in the ledger');

-- A client's names for their requests, whatever has become of what these bought.
CREATE TABLE punchcard.idempotency_keys (
    account_id    uuid NOT NULL,                      -- whose
    key           uuid NOT NULL,                      -- `key_digest` of it
    request_hash  uuid NOT NULL,                      -- of what the key was used for
    job_id        uuid NOT NULL,                      -- what it bought: a job, or the first of a batch
    last_job_id   uuid,                               -- the last of a batch
    PRIMARY KEY (account_id, key)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01,
        autovacuum_analyze_scale_factor = 0.01);

-- A job is retried once; who wants more retries the retry.
CREATE TABLE punchcard.retries (
    job_id      uuid PRIMARY KEY,                     -- what failed, or was canceled
    retried_as  uuid NOT NULL                         -- the job that is its other try
);

CREATE TRIGGER retries_are_never_emptied BEFORE TRUNCATE ON punchcard.retries
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a job is retried once');
CREATE TRIGGER retries_never_change BEFORE UPDATE OR DELETE ON punchcard.retries
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a job is retried once');

-- By what a caller finds their jobs: each tag, and each pair of the metadata as `key=value`.
CREATE TABLE punchcard.labels (
    account_id  uuid NOT NULL,                        -- whose job
    label       text NOT NULL,                        -- a tag, or `key=value`
    job_id      uuid NOT NULL,                        -- which has it
    PRIMARY KEY (account_id, label, job_id)
) PARTITION BY RANGE (job_id);

CREATE TRIGGER labels_never_change BEFORE UPDATE OR DELETE ON punchcard.labels
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('labels', 'what was bought stays as it was');

-- What is to be done: one thin row for each unfinished job, with all that changes while it is.
CREATE TABLE punchcard.queue (
    job_id               uuid PRIMARY KEY,            -- as in jobs
    account_id           uuid NOT NULL,               -- as in jobs
    price                bigint NOT NULL,             -- as in jobs
    lease_token          bigint NOT NULL DEFAULT 0,   -- rises with each claim, never falls
    lease_expires_at     timestamptz,                 -- leased (running) until then
    waiting_until        timestamptz,                 -- running outside, without a lease:
                                                      -- called back by then. If neither is set, it is queued
    run_at               timestamptz NOT NULL,        -- not before
    expires_at           timestamptz NOT NULL,        -- as in jobs
    started_at           timestamptz,                 -- its first claim
    run_started_at       timestamptz,                 -- its last claim
    terms_id             integer NOT NULL,            -- as in jobs
    bytes                integer NOT NULL DEFAULT 0,  -- of the input
    share                smallint NOT NULL,           -- as in jobs
    priority             smallint NOT NULL,           -- as in jobs
    attempt              smallint NOT NULL DEFAULT 0,  -- starts that count: neither crashed,
                                                       -- snoozed nor returned
    max_attempts         smallint NOT NULL,           -- as in jobs
    crashes              smallint NOT NULL DEFAULT 0,  -- starts whose time was up,
                                                       -- or whose worker never reported
    has_run              boolean NOT NULL DEFAULT false,  -- a run has ended that did something for it, or
                                                          -- may have: from then on a cancel costs what its
                                                          -- terms' on_cancel says
    kind                 text COLLATE "C" NOT NULL,   -- as in jobs
    cancel_requested_at  timestamptz,                 -- of a running job:
                                                      -- its worker is told when it checks in
    progress_percent     smallint,                    -- of the current run, as its handler said
    progress_message     text,                        -- of the current run, as its handler said
    progress_at          timestamptz,                 -- when its handler said so
    checkpoint           json,                        -- what a run saved for the next one
    webhook              jsonb,                       -- as in jobs
    error                json,                        -- of the last attempt that erred:
                                                      -- {code, message, attempt}
    CONSTRAINT queue_attempts_are_bounded CHECK (attempt BETWEEN 0 AND max_attempts)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2,
        vacuum_truncate = off);

-- Claim reads what is due of each kind that it serves by priority, then age: what others serve, and what is
-- delayed and lies behind `now()`, costs it nothing.
CREATE INDEX queue_due ON punchcard.queue (kind, priority, run_at, job_id)
    WHERE lease_expires_at IS NULL AND waiting_until IS NULL;
-- Rescue reads what has lapsed: its lease, its wait, or its life.
CREATE INDEX queue_lapse ON punchcard.queue (coalesce(lease_expires_at, waiting_until, expires_at));

CREATE TRIGGER queue_token_never_falls BEFORE UPDATE ON punchcard.queue
    FOR EACH ROW WHEN (NEW.lease_token < OLD.lease_token)
    EXECUTE FUNCTION punchcard.refuse_change('lease_token never falls');

-- What a worker, or who works outside, says of a run: see `settle`.
CREATE TYPE punchcard.verdict AS ENUM (
    'complete', 'fail', 'reject', 'cancel', 'overdue', 'retry', 'snooze', 'crash', 'yield', 'return', 'wait');

-- How a job ends.
CREATE TYPE punchcard.final_status AS ENUM ('succeeded', 'failed', 'canceled');

-- What came of it. Written once, by the statement that closed the hold; the job's row in the queue goes with
-- it. It is the capture, and the release of what is left of the price.
CREATE TABLE punchcard.outcomes (
    job_id           uuid PRIMARY KEY,                -- one final status, one end of the hold
    account_id       uuid NOT NULL,                   -- as in jobs
    finished_at      timestamptz NOT NULL,            -- when it became final
    captured         bigint NOT NULL,                 -- of its price; the rest was released
    entry            bigint,                          -- its number in the account's share; NULL: it was
                                                      -- deferred, and `deferred_entries` has it,
                                                      -- as the balances
    available_after  bigint,                          -- the share's `available` once it was in
    held_after       bigint,                          -- the share's `held` once it was in
    lease_token      bigint NOT NULL DEFAULT 0,       -- of its last claim
    run_started_at   timestamptz,                     -- of the run that ended it; NULL: none did
    started_at       timestamptz,                     -- of its first run, if that is another
    share            smallint NOT NULL,               -- as in jobs
    attempt          smallint NOT NULL,               -- as in queue, when it ended
    crashes          smallint NOT NULL DEFAULT 0,     -- as in queue, when it ended
    status           punchcard.final_status NOT NULL,  -- how it ended
    output           json,                            -- of what succeeded
    error            json,                            -- {code, message, attempt}
    CONSTRAINT outcomes_capture_no_debt CHECK (captured >= 0),
    CONSTRAINT outcomes_output_iff_succeeded CHECK ((status = 'succeeded') = (output IS NOT NULL)),
    CONSTRAINT outcomes_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL)
) PARTITION BY RANGE (job_id);

-- The ledger's pages, by time (`find_entries`).
CREATE INDEX outcomes_by_time ON punchcard.outcomes (account_id, finished_at);
-- The dead letters, to be found and retried (`redrive`).
CREATE INDEX outcomes_failed ON punchcard.outcomes (finished_at, job_id) WHERE status = 'failed';

-- An account's jobs that failed (`find_jobs`). An index for each status: where row security is on, an enum is
-- compared with no index (its operators are not leakproof), but by its predicate.
CREATE INDEX outcomes_failed_of_account ON punchcard.outcomes (account_id, job_id) WHERE status = 'failed';
-- An account's jobs that were canceled (`find_jobs`).
CREATE INDEX outcomes_canceled_of_account ON punchcard.outcomes (account_id, job_id)
    WHERE status = 'canceled';

CREATE TRIGGER outcomes_are_kept BEFORE DELETE ON punchcard.outcomes
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');
CREATE TRIGGER outcomes_are_final BEFORE UPDATE ON punchcard.outcomes
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('outcomes', 'a finished job never changes');
CREATE TRIGGER outcomes_are_never_emptied BEFORE TRUNCATE ON punchcard.outcomes
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');

-- A job that ends, on its way through `settle`.
CREATE TYPE punchcard.ended_job AS (
    job_id uuid, price bigint, captured bigint, bytes integer, lease_token bigint, started_at timestamptz,
    run_started_at timestamptz, attempt smallint, crashes smallint, status punchcard.final_status,
    output json, error json);

-- How a run ends that does not end its job.
CREATE TYPE punchcard.run_end AS ENUM ('retry', 'snooze', 'yield', 'crash');

-- The runs that did not end their job; the one that did is in its outcome. Of a job that is put off again and
-- again, the first 1,000.
CREATE TABLE punchcard.attempts (
    job_id      uuid NOT NULL,                        -- whose run
    number      bigint NOT NULL,                      -- the lease_token of its claim
    attempt     smallint NOT NULL,                    -- what the policy counted it as
    ended       punchcard.run_end NOT NULL,           -- how
    started_at  timestamptz,                          -- when it was claimed
    ended_at    timestamptz NOT NULL,                 -- when its worker said so, or it was taken back
    error       json,                                 -- {code, message, attempt}
    PRIMARY KEY (job_id, number)
) PARTITION BY RANGE (job_id);

CREATE TRIGGER attempts_are_kept BEFORE DELETE ON punchcard.attempts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what happened has happened');
CREATE TRIGGER attempts_never_change BEFORE UPDATE ON punchcard.attempts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('attempts', 'what happened has happened');

-- --------------------------------------------------------------------------------------------- webhooks

-- Where an account is told of its jobs, but for those that name a webhook of their own. Its secret is derived
-- (signing.rs) and signs for both; the last one still does for a day after it was rotated.
CREATE TABLE punchcard.webhooks (
    account_id      uuid PRIMARY KEY,                 -- who is told
    url             text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- where; NULL: nowhere
    events          text[] NOT NULL DEFAULT '{job.succeeded,job.failed,job.canceled}'  -- of what
                    CHECK (events <@ ARRAY['job.running', 'job.succeeded', 'job.failed', 'job.canceled']),
    secret_version  integer NOT NULL DEFAULT 1,       -- of the secret that messages are signed by
    rotated_at      timestamptz,                      -- since when
    disabled_at     timestamptz                       -- it answered 410 (Gone)
);

-- What somebody is told of a job; `cancel` is for its kind's cancel_url.
CREATE TYPE punchcard.event AS ENUM ('job.running', 'job.succeeded', 'job.failed', 'job.canceled', 'cancel');

-- The outbox: what is to be said of a job, written by the statement that did it, until somebody has heard or
-- it is given up: then it is in `deliveries`.
CREATE TABLE punchcard.outbox (
    id          uuid PRIMARY KEY,                     -- the message's `webhook-id`,
                                                      -- the same each time it is sent
    account_id  uuid NOT NULL,                        -- as in jobs
    job_id      uuid NOT NULL,                        -- of which job
    next_at     timestamptz NOT NULL,                 -- not before; while it is being sent,
                                                      -- when that is given up
    created_at  timestamptz NOT NULL DEFAULT now(),   -- when it happened
    event       punchcard.event NOT NULL,             -- what happened
    attempt     smallint NOT NULL DEFAULT 0,          -- how often it was taken to be sent;
                                                      -- each is recorded once
    settled     smallint NOT NULL DEFAULT 0,          -- the last attempt whose result is recorded
    put_back    smallint NOT NULL DEFAULT 0,          -- how often it was not sent,
                                                      -- for no fault of its receiver's
    url         text,                                 -- NULL: the account's, as it is when it is sent
    error       text                                  -- why the last attempt failed
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2,
        vacuum_truncate = off);

-- What is due (`claim_deliveries`).
CREATE INDEX outbox_due ON punchcard.outbox (next_at);
-- Whose are due, account by account (`claim_deliveries`).
CREATE INDEX outbox_waiting ON punchcard.outbox (account_id, next_at);
-- Those of one job.
CREATE INDEX outbox_job ON punchcard.outbox (job_id, id);
-- What was sent and not heard yet, for the operator.
CREATE INDEX outbox_unheard ON punchcard.outbox (id) WHERE error IS NOT NULL;

-- What was said of a job and heard, or given up.
CREATE TABLE punchcard.deliveries (
    id            uuid NOT NULL,                      -- as in outbox
    account_id    uuid NOT NULL,                      -- as in jobs
    job_id        uuid NOT NULL,                      -- of which job
    created_at    timestamptz NOT NULL,               -- when it happened
    delivered_at  timestamptz,                        -- when somebody heard it; NULL: it was given up
    event         punchcard.event NOT NULL,           -- what happened
    attempt       smallint NOT NULL,                  -- how often it was taken to be sent
    put_back      smallint NOT NULL,                  -- of these, how often it was not sent
    gone          boolean NOT NULL,                   -- it answered 410 (Gone): they hear no more of this job
    url           text,                               -- as in outbox
    error         text,                               -- why it was given up
    PRIMARY KEY (job_id, id)                          -- those of one job
) PARTITION BY RANGE (job_id);

-- One of them (`resend`).
CREATE INDEX deliveries_id ON punchcard.deliveries (id);
-- What was never heard, for the operator.
CREATE INDEX deliveries_unheard ON punchcard.deliveries (id) WHERE delivered_at IS NULL;

-- --------------------------------------------------------------------------------------------- retention

-- For how long history is kept (ADR 20): `punchcard apply` writes it.
CREATE TABLE punchcard.retention (
    only_one         boolean PRIMARY KEY DEFAULT true CHECK (only_one),  -- there is one
    payload_days     integer DEFAULT 400              -- jobs, with all that is theirs, from their purchase;
                                                      -- a month goes as a whole; NULL: for ever
                     CHECK (payload_days BETWEEN 90 AND 36500),
    key_days         integer DEFAULT 400              -- idempotency keys, from their first use;
                                                      -- NULL: for ever
                     CHECK (key_days BETWEEN 90 AND 36500),
    money_days       integer                          -- entries one by one; NULL: for ever
                     CHECK (money_days BETWEEN 90 AND 36500),
    archived_before  uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- the entries of jobs
                                                      -- with lesser ids are in the archive
    carried_before   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- and of these,
                                                      -- they are carried
    carrying_before  uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- or are being carried
    carry_after      uuid,                            -- behind which account what else moved in that time is
                                                      -- carried; NULL: of the first
    keys_block       bigint NOT NULL DEFAULT 0,       -- where the search for old keys goes on
    CONSTRAINT retention_keys_outlive_payloads
        CHECK (coalesce(key_days, 100000) >= coalesce(payload_days, 100000)),
    CONSTRAINT retention_money_outlives_payloads
        CHECK (coalesce(money_days, 100000) >= coalesce(payload_days, 100000))
);

INSERT INTO punchcard.retention DEFAULT VALUES;

-- Months that are past the retention of payloads, each with all that was before it.
CREATE TABLE punchcard.archived_months (
    end_id         uuid PRIMARY KEY,                  -- its jobs' ids are less
    after_account  uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- behind which account
    after_job      uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- and job it goes on
    jobs           bigint NOT NULL DEFAULT 0,         -- how many are in the archive
    last_at        timestamptz NOT NULL DEFAULT '-infinity',  -- of their last entry
    archived_at    timestamptz,                       -- all of them are
    gone_at        timestamptz                        -- its tables are gone
);

-- The entries of jobs whose payloads are gone: some hundred in a row, in the order of accounts, shares and
-- numbers. What an array has at a place is of one entry.
CREATE TABLE punchcard.archive (
    end_id           uuid NOT NULL,                   -- in which month the jobs were bought: archived_months
    first_account    uuid NOT NULL,                   -- whose the first entry is
    last_account     uuid NOT NULL,                   -- whose the last is
    first_entry      bigint NOT NULL,                 -- the number of the first
    first_at         timestamptz NOT NULL,            -- when the earliest was made
    last_at          timestamptz NOT NULL,            -- when the latest was
    accounts         uuid[] NOT NULL,                 -- whose each is
    shares           smallint[] NOT NULL,             -- as in jobs
    entries          bigint[] NOT NULL,               -- their numbers in the account's share
    at               timestamptz[] NOT NULL,          -- `created_at` of holds, `finished_at` of ends
    job_ids          uuid[] NOT NULL,                 -- of which job
    prices           bigint[] NOT NULL,               -- as in jobs
    captured         bigint[] NOT NULL,               -- as in outcomes; NULL: it is a hold
    available_after  bigint[] NOT NULL,               -- as in jobs and outcomes
    held_after       bigint[] NOT NULL,               -- as in jobs and outcomes
    lines            integer NOT NULL,                -- how many lines of the ledger they are
    first_share      smallint NOT NULL,               -- the share of the first
    PRIMARY KEY (end_id, first_account, first_share, first_entry)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01,
        autovacuum_analyze_scale_factor = 0.01);

-- What entries moved that are kept no more: of each account's share one row, which grows. Together with the
-- entries that are left it has each number once.
CREATE TABLE punchcard.carried (
    account_id  uuid NOT NULL,                        -- as in accounts
    share       smallint NOT NULL,                    -- as in accounts
    numbers     int8multirange NOT NULL,              -- the numbers of the entries
    entries     bigint NOT NULL,                      -- how many they are
    available   bigint NOT NULL,                      -- what they did to `available`
    held        bigint NOT NULL,                      -- what they did to `held`
    until       timestamptz NOT NULL,                 -- they were made before; of jobs that were bought
                                                      -- before, the ends too
    last_at     timestamptz NOT NULL,                 -- when the last of them was made
    sha256      text NOT NULL,                        -- of what was here before them, and of all of them in
                                                      -- their order
    PRIMARY KEY (account_id, share)
);

CREATE TRIGGER carried_is_kept BEFORE DELETE ON punchcard.carried
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER carried_only_grows BEFORE UPDATE ON punchcard.carried
    FOR EACH ROW WHEN (NOT (NEW.numbers @> OLD.numbers AND NEW.entries > OLD.entries
                            AND NEW.sha256 <> OLD.sha256 AND NEW.until >= OLD.until
                            AND NEW.last_at >= OLD.last_at))
    EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER carried_is_never_emptied BEFORE TRUNCATE ON punchcard.carried
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- For triggers of the ledger: an entry goes only once its number is carried.
CREATE FUNCTION punchcard.refuse_uncarried() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone record;
BEGIN
    IF TG_TABLE_NAME = 'archive' THEN
        SELECT INTO gone FROM unnest(OLD.accounts, OLD.shares, OLD.entries) AS e (account_id, share, entry)
        LEFT JOIN punchcard.carried c ON c.account_id = e.account_id AND c.share = e.share
        WHERE (c.numbers @> e.entry) IS NOT TRUE;
    ELSE
        SELECT INTO gone FROM (SELECT 1) one
        LEFT JOIN punchcard.carried c ON c.account_id = OLD.account_id AND c.share = OLD.share
        WHERE (c.numbers @> OLD.entry) IS NOT TRUE;
    END IF;
    IF FOUND THEN
        RAISE EXCEPTION '% on %.% is refused: the ledger is append-only', lower(TG_OP), TG_TABLE_SCHEMA,
            TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$;

CREATE TRIGGER archive_is_append_only BEFORE UPDATE ON punchcard.archive
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER archive_is_carried BEFORE DELETE ON punchcard.archive
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_uncarried();
CREATE TRIGGER archive_is_never_emptied BEFORE TRUNCATE ON punchcard.archive
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER movements_are_carried BEFORE DELETE ON punchcard.movements
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_uncarried();

-- What was deferred goes once it is in the archive.
CREATE FUNCTION punchcard.refuse_unarchived() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.job_id < (SELECT r.archived_before FROM punchcard.retention r) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on %.% is refused: the ledger is append-only', lower(TG_OP), TG_TABLE_SCHEMA,
        TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER deferred_entries_are_archived BEFORE DELETE ON punchcard.deferred_entries
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unarchived();

-- ------------------------------------------------------------------------------------------------ access

-- Service tokens: the team's own backend and payment system. Only the SHA-256 is kept; two are valid at a
-- time (the two slots), so that one can be rotated without a gap.
CREATE TABLE punchcard.service_tokens (
    name        text NOT NULL CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),  -- whose
    slot        smallint NOT NULL CHECK (slot IN (1, 2)),  -- the older or the newer
    scopes      text[] NOT NULL                       -- what it may
                CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['enqueue', 'grant', 'operate']),
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),  -- of the token
    created_at  timestamptz NOT NULL DEFAULT now(),   -- when it was made
    PRIMARY KEY (name, slot)
);

-- ------------------------------------------------------------------------------------------------ upkeep

-- What ticks do beside the jobs, and when next (`keep_up`).
CREATE TABLE punchcard.upkeep (
    task     text PRIMARY KEY,                        -- as in functions/worker/src/upkeep.rs
    next_at  timestamptz NOT NULL DEFAULT now(),      -- due from then on
    done_at  timestamptz,                             -- when there was nothing left to do of it
    error    text                                     -- why it has to wait; NULL: it does not
) WITH (fillfactor = 50);

INSERT INTO punchcard.upkeep (task) VALUES ('periods'), ('retention'), ('keys'), ('erasures'), ('audit'),
    ('expiries');

-- How far the audit is that ticks do, a part of the accounts after the other (`audit_next`).
CREATE TABLE punchcard.audit_rounds (
    only_one    boolean PRIMARY KEY DEFAULT true CHECK (only_one),  -- there is one
    of_rows     boolean NOT NULL DEFAULT false,       -- the accounts are through: it is at what names jobs
    after_id    uuid,                                 -- behind which account, or job, it goes on;
                                                      -- NULL: with the first
    began_at    timestamptz NOT NULL DEFAULT now(),   -- when this round began
    entries     bigint NOT NULL DEFAULT 0,            -- how many entries it has looked at
    left_out    bigint NOT NULL DEFAULT 0,            -- accounts that are too large for a tick
    done_at     timestamptz                           -- when the last round was through; NULL: none was
);

INSERT INTO punchcard.audit_rounds DEFAULT VALUES;

-- What the audit found to be wrong with money, the first 1,000: in this round, or in the last one.
CREATE TABLE punchcard.audit_findings (
    invariant  text NOT NULL,                         -- I1 to I6
    subject    uuid NOT NULL,                         -- the account or job that it is about
    finding    text NOT NULL,                         -- what
    found_at   timestamptz NOT NULL DEFAULT now(),    -- first
    seen_at    timestamptz NOT NULL DEFAULT now(),    -- last
    PRIMARY KEY (invariant, subject, finding)
);

-- What `migrate` keeps for itself, and makes before anything else.
COMMENT ON TABLE punchcard.migrations IS 'The migrations that were applied.';
COMMENT ON COLUMN punchcard.migrations.name IS 'As in infra/migrations.';
COMMENT ON COLUMN punchcard.migrations.applied_at IS 'When.';
COMMENT ON TABLE punchcard.functions IS 'The functions that were applied.';
COMMENT ON COLUMN punchcard.functions.name IS 'As in infra/functions.';
COMMENT ON COLUMN punchcard.functions.sha256 IS 'Of its file: one that differs is applied again.';
COMMENT ON COLUMN punchcard.functions.version IS 'Of the build that did: an older one leaves it alone.';
COMMENT ON COLUMN punchcard.functions.applied_at IS 'When.';
