-- The schema as a whole, as the catalog has it: to be read, not to be applied. It is made of infra/migrations and
-- infra/functions; `PUNCHCARD_RECORD=1 cargo xtask test --direct-only -- db::schema` writes it anew.

-- What is kept of a job's price when one that runs, or has run, is canceled (`refuse`: it cannot be), or when it fails for its input.
CREATE TYPE punchcard.charge AS ENUM ('release', 'capture', 'refuse');

-- What moves credits. `expire` takes what is left of a grant with a date (ADR 23); `shift` moves credits between shares; `carried` is the sum of entries that are kept no more (ADR 20).
CREATE TYPE punchcard.entry_kind AS ENUM ('grant', 'hold', 'capture', 'release', 'adjust', 'expire', 'shift', 'carried');

-- What somebody is told of a job; `cancel` is for its kind's cancel_url.
CREATE TYPE punchcard.event AS ENUM ('job.running', 'job.succeeded', 'job.failed', 'job.canceled', 'cancel');

-- How a job ends.
CREATE TYPE punchcard.final_status AS ENUM ('succeeded', 'failed', 'canceled');

-- How a run ends that does not end its job.
CREATE TYPE punchcard.run_end AS ENUM ('retry', 'snooze', 'yield', 'crash');

-- What a worker, or who works outside, says of a run: see `settle`.
CREATE TYPE punchcard.verdict AS ENUM ('complete', 'fail', 'reject', 'cancel', 'overdue', 'retry', 'snooze', 'crash', 'yield', 'return', 'wait');

-- Who pays, and what they have: one row for each payer, in share 0. Every movement locks it, so that no two can spend the same credit; for an account so busy that its buyers queue up for that lock, `spread_account` adds shares (ADR 8).
CREATE TABLE punchcard.accounts (
    id uuid NOT NULL,  -- a user's id by default; any payer in general
    share smallint NOT NULL DEFAULT 0,  -- 0 to 63
    spread smallint NOT NULL DEFAULT 1,  -- in share 0: how many shares buyers use; in each: 0 once the account is closed (`erasures`)
    available bigint NOT NULL DEFAULT 0,  -- free to spend
    held bigint NOT NULL DEFAULT 0,  -- set aside for unfinished jobs
    entries bigint NOT NULL DEFAULT 0,  -- the number of the share's last entry
    unfinished_jobs integer NOT NULL DEFAULT 0,  -- how many are unfinished, free ones too
    unfinished_bytes bigint NOT NULL DEFAULT 0,  -- the bytes of the unfinished jobs' inputs
    paced_until timestamp with time zone,  -- in share 0, where enqueues are limited: see `pass_limits`
    created_at timestamp with time zone NOT NULL DEFAULT now(),  -- of its first grant, or purchase
    CONSTRAINT accounts_pkey PRIMARY KEY (id, share),
    CONSTRAINT accounts_never_negative CHECK (((available >= 0) AND (held >= 0)))
) WITH (fillfactor=50);
CREATE TRIGGER accounts_are_kept BEFORE DELETE ON punchcard.accounts FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');
CREATE TRIGGER accounts_are_never_emptied BEFORE TRUNCATE ON punchcard.accounts FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');

-- The entries of jobs whose payloads are gone: some hundred in a row, in the order of accounts, shares and numbers. What an array has at a place is of one entry.
CREATE TABLE punchcard.archive (
    end_id uuid NOT NULL,  -- in which month the jobs were bought: archived_months
    first_account uuid NOT NULL,  -- whose the first entry is
    last_account uuid NOT NULL,  -- whose the last is
    first_entry bigint NOT NULL,  -- the number of the first
    first_at timestamp with time zone NOT NULL,  -- when the earliest was made
    last_at timestamp with time zone NOT NULL,  -- when the latest was
    accounts uuid[] NOT NULL,  -- whose each is
    shares smallint[] NOT NULL,  -- as in jobs
    entries bigint[] NOT NULL,  -- their numbers in the account's share
    at timestamp with time zone[] NOT NULL,  -- `created_at` of holds, `finished_at` of ends
    job_ids uuid[] NOT NULL,  -- of which job
    prices bigint[] NOT NULL,  -- as in jobs
    captured bigint[] NOT NULL,  -- as in outcomes; NULL: it is a hold
    available_after bigint[] NOT NULL,  -- as in jobs and outcomes
    held_after bigint[] NOT NULL,  -- as in jobs and outcomes
    lines integer NOT NULL,  -- how many lines of the ledger they are
    first_share smallint NOT NULL,  -- the share of the first
    CONSTRAINT archive_pkey PRIMARY KEY (end_id, first_account, first_share, first_entry)
) WITH (autovacuum_freeze_min_age=0, autovacuum_vacuum_insert_scale_factor=0.01, autovacuum_analyze_scale_factor=0.01);
CREATE TRIGGER archive_is_append_only BEFORE UPDATE ON punchcard.archive FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER archive_is_carried BEFORE DELETE ON punchcard.archive FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_uncarried();
CREATE TRIGGER archive_is_never_emptied BEFORE TRUNCATE ON punchcard.archive FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- Months that are past the retention of payloads, each with all that was before it.
CREATE TABLE punchcard.archived_months (
    end_id uuid NOT NULL,  -- its jobs' ids are less
    after_account uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- behind which account
    after_job uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- and job it goes on
    jobs bigint NOT NULL DEFAULT 0,  -- how many are in the archive
    last_at timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,  -- of their last entry
    archived_at timestamp with time zone,  -- all of them are
    gone_at timestamp with time zone,  -- its tables are gone
    CONSTRAINT archived_months_pkey PRIMARY KEY (end_id)
);

-- The runs that did not end their job; the one that did is in its outcome. Of a job that is put off again and again, the first 1,000.
CREATE TABLE punchcard.attempts (
    job_id uuid NOT NULL,  -- whose run
    number bigint NOT NULL,  -- the lease_token of its claim
    attempt smallint NOT NULL,  -- what the policy counted it as
    ended punchcard.run_end NOT NULL,  -- how
    started_at timestamp with time zone,  -- when it was claimed
    ended_at timestamp with time zone NOT NULL,  -- when its worker said so, or it was taken back
    error json,  -- {code, message, attempt}
    CONSTRAINT attempts_pkey PRIMARY KEY (job_id, number)
) PARTITION BY RANGE (job_id);
CREATE TRIGGER attempts_are_kept BEFORE DELETE ON punchcard.attempts FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what happened has happened');
CREATE TRIGGER attempts_never_change BEFORE UPDATE ON punchcard.attempts FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('attempts', 'what happened has happened');

-- What the audit found to be wrong with money, the first 1,000: in this round, or in the last one.
CREATE TABLE punchcard.audit_findings (
    invariant text NOT NULL,  -- I1 to I6
    subject uuid NOT NULL,  -- the account or job that it is about
    finding text NOT NULL,  -- what
    found_at timestamp with time zone NOT NULL DEFAULT now(),  -- first
    seen_at timestamp with time zone NOT NULL DEFAULT now(),  -- last
    CONSTRAINT audit_findings_pkey PRIMARY KEY (invariant, subject, finding)
);

-- How far the audit is that ticks do, a part of the accounts after the other (`audit_next`).
CREATE TABLE punchcard.audit_rounds (
    only_one boolean NOT NULL DEFAULT true,  -- there is one
    of_rows boolean NOT NULL DEFAULT false,  -- the accounts are through: it is at what names jobs
    after_id uuid,  -- behind which account, or job, it goes on; NULL: with the first
    began_at timestamp with time zone NOT NULL DEFAULT now(),  -- when this round began
    entries bigint NOT NULL DEFAULT 0,  -- how many entries it has looked at
    left_out bigint NOT NULL DEFAULT 0,  -- accounts that are too large for a tick
    done_at timestamp with time zone,  -- when the last round was through; NULL: none was
    CONSTRAINT audit_rounds_pkey PRIMARY KEY (only_one),
    CONSTRAINT audit_rounds_only_one_check CHECK (only_one)
);

-- What entries moved that are kept no more: of each account's share one row, which grows. Together with the entries that are left it has each number once.
CREATE TABLE punchcard.carried (
    account_id uuid NOT NULL,  -- as in accounts
    share smallint NOT NULL,  -- as in accounts
    numbers int8multirange NOT NULL,  -- the numbers of the entries
    entries bigint NOT NULL,  -- how many they are
    available bigint NOT NULL,  -- what they did to `available`
    held bigint NOT NULL,  -- what they did to `held`
    until timestamp with time zone NOT NULL,  -- they were made before; of jobs that were bought before, the ends too
    last_at timestamp with time zone NOT NULL,  -- when the last of them was made
    sha256 text NOT NULL,  -- of what was here before them, and of all of them in their order
    CONSTRAINT carried_pkey PRIMARY KEY (account_id, share)
);
CREATE TRIGGER carried_is_kept BEFORE DELETE ON punchcard.carried FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER carried_is_never_emptied BEFORE TRUNCATE ON punchcard.carried FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER carried_only_grows BEFORE UPDATE ON punchcard.carried FOR EACH ROW WHEN ((NOT ((new.numbers @> old.numbers) AND (new.entries > old.entries) AND (new.sha256 <> old.sha256) AND (new.until >= old.until) AND (new.last_at >= old.last_at)))) EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- Credits that the team keeps in a table of its own, if it does (ADR 10).
CREATE TABLE punchcard.credit_source (
    only_one boolean NOT NULL DEFAULT true,  -- there is one source, or none
    balances text NOT NULL,  -- the team's table
    account_column text NOT NULL,  -- its column of accounts
    balance_column text NOT NULL,  -- its column of balances
    mover text,  -- the team's function that moves credits; NULL: we update the table
    read_balance text NOT NULL,  -- as SQL: $1 is the account
    move_balance text NOT NULL,  -- as SQL: $2 is the amount, below 0 to charge
    search_path text NOT NULL,  -- what the team's function expects
    set_at timestamp with time zone NOT NULL DEFAULT now(),  -- since when credits come from there
    CONSTRAINT credit_source_pkey PRIMARY KEY (only_one),
    CONSTRAINT credit_source_only_one_check CHECK (only_one)
);

-- The accounts that have grants with a date, as they were when what they had spent was last dealt to these.
CREATE TABLE punchcard.dated_accounts (
    account_id uuid NOT NULL,  -- whose
    total bigint NOT NULL,  -- what it had, free and held
    entry bigint NOT NULL,  -- the number of its last entry in share 0
    dealt_at timestamp with time zone NOT NULL,  -- when that was
    error text,  -- why it could not be dealt with since
    CONSTRAINT dated_accounts_pkey PRIMARY KEY (account_id)
);
-- What waits, for health and the doctor.
CREATE INDEX dated_accounts_waiting ON punchcard.dated_accounts USING btree (dealt_at) WHERE (error IS NOT NULL);

-- Grants whose credits lapse: what is left of each as of when the account was last dealt with (`dated_left` says what is left now). What is spent is taken from what lapses first.
CREATE TABLE punchcard.dated_grants (
    account_id uuid NOT NULL,  -- whose
    entry bigint NOT NULL,  -- the number of its movement, in share 0
    expires_at timestamp with time zone NOT NULL,  -- when what is left lapses
    look_at timestamp with time zone NOT NULL,  -- when upkeep looks at it: then, and as long as some of it is held, again
    left_over bigint NOT NULL,  -- what was not spent of it
    CONSTRAINT dated_grants_pkey PRIMARY KEY (account_id, entry),
    CONSTRAINT dated_grants_left_over_check CHECK ((left_over >= 0))
);
-- What lapses (`expire_credits`).
CREATE INDEX dated_grants_due ON punchcard.dated_grants USING btree (look_at) WHERE (left_over > 0);

-- What jobs moved whose account somebody held when they ended: final at once, and entered into the balances by whoever holds the account next (`fold_entries`).
CREATE TABLE punchcard.deferred_entries (
    job_id uuid NOT NULL,  -- whose end it is
    account_id uuid NOT NULL,  -- who pays
    price bigint NOT NULL,  -- what is held no more
    captured bigint NOT NULL,  -- of the price; the rest is released
    entry bigint,  -- its number in the account's share; NULL: it waits
    available_after bigint,  -- the share's `available` once it was entered
    held_after bigint,  -- the share's `held` once it was entered
    bytes integer NOT NULL,  -- of the job's input, which counts no more
    share smallint NOT NULL,  -- of the account, which held the price
    CONSTRAINT deferred_entries_pkey PRIMARY KEY (job_id)
);
-- What waits, for whoever enters it (`fold_entries`, `enter_deferred`) and whoever counts it (`balances`).
CREATE INDEX deferred_entries_waiting ON punchcard.deferred_entries USING btree (account_id, share) WHERE (entry IS NULL);
CREATE TRIGGER deferred_entries_are_archived BEFORE DELETE ON punchcard.deferred_entries FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unarchived();
CREATE TRIGGER deferred_entries_are_entered_once BEFORE UPDATE ON punchcard.deferred_entries FOR EACH ROW WHEN ((old.entry IS NOT NULL)) EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER deferred_entries_are_never_emptied BEFORE TRUNCATE ON punchcard.deferred_entries FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- What was said of a job and heard, or given up.
CREATE TABLE punchcard.deliveries (
    id uuid NOT NULL,  -- as in outbox
    account_id uuid NOT NULL,  -- as in jobs
    job_id uuid NOT NULL,  -- of which job
    created_at timestamp with time zone NOT NULL,  -- when it happened
    delivered_at timestamp with time zone,  -- when somebody heard it; NULL: it was given up
    event punchcard.event NOT NULL,  -- what happened
    attempt smallint NOT NULL,  -- how often it was taken to be sent
    put_back smallint NOT NULL,  -- of these, how often it was not sent
    gone boolean NOT NULL,  -- it answered 410 (Gone): they hear no more of this job
    url text,  -- as in outbox
    error text,  -- why it was given up
    CONSTRAINT deliveries_pkey PRIMARY KEY (job_id, id)
) PARTITION BY RANGE (job_id);
-- One of them (`resend`).
CREATE INDEX deliveries_id ON punchcard.deliveries USING btree (id);
-- What was never heard, for the operator.
CREATE INDEX deliveries_unheard ON punchcard.deliveries USING btree (id) WHERE (delivered_at IS NULL);

-- Accounts that are to be forgotten, and those that are (ADR 21): closed for good from the moment they are here. Their entries stay.
CREATE TABLE punchcard.erasures (
    account_id uuid NOT NULL,  -- who is forgotten
    asked_at timestamp with time zone NOT NULL DEFAULT now(),  -- since when it is closed
    done_at timestamp with time zone,  -- when nothing of its payloads was left
    look_at timestamp with time zone NOT NULL DEFAULT now(),  -- when to go on, while a job of it is unfinished
    after_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- behind which of its jobs to go on
    jobs bigint NOT NULL DEFAULT 0,  -- how many lost their payloads so far
    keys bigint NOT NULL DEFAULT 0,  -- how many idempotency keys are deleted
    messages bigint NOT NULL DEFAULT 0,  -- how many messages were never sent
    waits_for uuid,  -- a job that was unfinished, since it ran, or cannot be canceled
    held_id uuid,  -- the first job that somebody was at when it was to be canceled: from there on anew
    error text,  -- what it waits for, or why a step failed
    CONSTRAINT erasures_pkey PRIMARY KEY (account_id)
);
-- What is to be done (`erase_payloads`).
CREATE INDEX erasures_open ON punchcard.erasures USING btree (asked_at) WHERE (done_at IS NULL);
CREATE TRIGGER erasures_are_kept BEFORE DELETE ON punchcard.erasures FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('an erased account is closed for good');
CREATE TRIGGER erasures_are_never_emptied BEFORE TRUNCATE ON punchcard.erasures FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('an erased account is closed for good');

-- The functions that were applied.
CREATE TABLE punchcard.functions (
    name text NOT NULL,  -- As in infra/functions.
    sha256 text NOT NULL,  -- Of its file: one that differs is applied again.
    version text NOT NULL,  -- Of the build that did: an older one leaves it alone.
    applied_at timestamp with time zone NOT NULL DEFAULT now(),  -- When.
    CONSTRAINT functions_pkey PRIMARY KEY (name)
);

-- A client's names for their requests, whatever has become of what these bought.
CREATE TABLE punchcard.idempotency_keys (
    account_id uuid NOT NULL,  -- whose
    key uuid NOT NULL,  -- `key_digest` of it
    request_hash uuid NOT NULL,  -- of what the key was used for
    job_id uuid NOT NULL,  -- what it bought: a job, or the first of a batch
    last_job_id uuid,  -- the last of a batch
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account_id, key)
) WITH (autovacuum_freeze_min_age=0, autovacuum_vacuum_insert_scale_factor=0.01, autovacuum_analyze_scale_factor=0.01);

-- What was bought. Written once, by the statement that held its price, and never changed: it is the hold. CHECKs are kept few and short here and in the tables below: PostgreSQL parses each anew for every statement (ADR 7).
CREATE TABLE punchcard.jobs (
    account_id uuid NOT NULL,  -- who bought it
    id uuid NOT NULL,  -- UUIDv7: sorts by creation
    price bigint NOT NULL,  -- what was held, whatever the kind costs later
    entry bigint NOT NULL,  -- the hold's number in the account's share
    available_after bigint NOT NULL,  -- the share's `available` once the hold was in
    held_after bigint NOT NULL,  -- the share's `held` once the hold was in
    scheduled_at timestamp with time zone,  -- asked for: not before; NULL: at once
    expires_at timestamp with time zone NOT NULL,  -- unfinished by then: failed and released
    created_at timestamp with time zone NOT NULL DEFAULT now(),  -- when it was bought
    terms_id integer,  -- on what it was bought; NULL: of an old system
    share smallint NOT NULL,  -- of the account, which holds the price
    priority smallint NOT NULL,  -- -10 to 10, higher first
    max_attempts smallint NOT NULL,  -- its terms', or fewer
    kind text NOT NULL,  -- of what it is one
    batch_id uuid,  -- of a batch with a key: its first job
    retry_of uuid,  -- the failed or canceled job that it is another try of
    retry jsonb,  -- where it differs from its kind's policy; NULL: nowhere
    metadata jsonb,  -- the caller's own: an object of strings
    tags text[],  -- the caller's own
    webhook jsonb,  -- who is told of it, {url, events}; NULL: the account's webhook
    input json NOT NULL,  -- as it was sent, digit for digit
    CONSTRAINT jobs_pkey PRIMARY KEY (account_id, id)
) PARTITION BY RANGE (id);
CREATE TRIGGER jobs_are_kept BEFORE DELETE ON punchcard.jobs FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('what was bought stays as it was; it is in the ledger');
CREATE TRIGGER jobs_are_never_emptied BEFORE TRUNCATE ON punchcard.jobs FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('what was bought is in the ledger');
CREATE TRIGGER jobs_never_change BEFORE UPDATE ON punchcard.jobs FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('jobs', 'what was bought stays as it was; it is in the ledger');

-- On what a job was bought: what its kind said of money and attempts then, a row for each change of it (ADR 17). What only says how a job is run (its target, time limit, back-off) is the kind's of now, so that it can be mended for what is queued.
CREATE TABLE punchcard.kind_terms (
    id integer NOT NULL,  -- numbered by the table itself: no restore sets it back
    kind text NOT NULL,  -- whose terms
    price bigint NOT NULL,  -- as in kinds
    metered boolean NOT NULL,  -- as in kinds
    on_cancel punchcard.charge NOT NULL,  -- as in kinds
    on_input_error punchcard.charge NOT NULL,  -- as in kinds
    max_attempts smallint NOT NULL,  -- as in kinds; a job may ask for fewer
    max_crashes smallint NOT NULL,  -- as in kinds
    life_seconds integer NOT NULL,  -- as in kinds
    created_at timestamp with time zone NOT NULL DEFAULT now(),  -- since when
    CONSTRAINT kind_terms_pkey PRIMARY KEY (id)
);
CREATE TRIGGER kind_terms_are_never_emptied BEFORE TRUNCATE ON punchcard.kind_terms FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('jobs were bought on these terms');
CREATE TRIGGER kind_terms_never_change BEFORE DELETE OR UPDATE ON punchcard.kind_terms FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs were bought on these terms');

-- What can be bought, as it is offered now: `punchcard apply` writes it.
CREATE TABLE punchcard.kinds (
    name text NOT NULL,  -- as buyers send it
    price bigint NOT NULL,  -- in credits, held at once
    metered boolean NOT NULL DEFAULT false,  -- the price is the most; what was used is captured
    max_priority smallint NOT NULL DEFAULT 0,  -- before whom a caller may put its jobs
    on_cancel punchcard.charge NOT NULL DEFAULT 'release'::punchcard.charge,  -- what is kept once a job runs, or has run
    on_input_error punchcard.charge NOT NULL DEFAULT 'release'::punchcard.charge,  -- what is kept if the input is to blame
    max_attempts integer NOT NULL DEFAULT 3,  -- errors until it fails
    max_crashes integer NOT NULL DEFAULT 3,  -- crashes until it fails
    backoff text NOT NULL DEFAULT 'exponential'::text,  -- how the delay grows from attempt to attempt
    backoff_seconds integer NOT NULL DEFAULT 10,  -- the first delay
    backoff_max_seconds integer NOT NULL DEFAULT 3600,  -- the longest delay
    backoff_delays integer[] NOT NULL DEFAULT '{}'::integer[],  -- of `fixed`: after the first attempt, the second, …
    jitter double precision NOT NULL DEFAULT 0.5,  -- the part of a delay that is left to chance
    timeout_seconds integer NOT NULL DEFAULT 30,  -- of one run
    life_seconds integer NOT NULL DEFAULT 604800,  -- unfinished for so long, a job fails
    dispatch text NOT NULL DEFAULT 'sqs'::text,  -- `sqs`: workers are woken for it, where SQS is on
    url text,  -- NULL: Rust code of this name
    cancel_url text,  -- told of a job that was dropped while somebody works on it
    callback_seconds integer NOT NULL DEFAULT 3600,  -- within which who answered 202 calls back
    secret_version integer NOT NULL DEFAULT 1,  -- of the secret that requests to the target are signed by
    terms_id integer NOT NULL,  -- on what is bought now: `kind_terms`, kept by a trigger
    retired_at timestamp with time zone,  -- not sold any more; what is queued fails and is released
    CONSTRAINT kinds_pkey PRIMARY KEY (name),
    CONSTRAINT kinds_backoff_check CHECK ((backoff = ANY (ARRAY['exponential'::text, 'linear'::text, 'fixed'::text]))),
    CONSTRAINT kinds_backoff_delays_check CHECK (((cardinality(backoff_delays) <= 25) AND (0 <= ALL (backoff_delays)) AND (86400 >= ALL (backoff_delays)))),
    CONSTRAINT kinds_backoff_max_seconds_check CHECK (((backoff_max_seconds >= 1) AND (backoff_max_seconds <= 86400))),
    CONSTRAINT kinds_backoff_seconds_check CHECK (((backoff_seconds >= 1) AND (backoff_seconds <= 86400))),
    CONSTRAINT kinds_callback_seconds_check CHECK (((callback_seconds >= 1) AND (callback_seconds <= 2592000))),
    CONSTRAINT kinds_cancel_url_check CHECK (((cancel_url ~ '^https?://'::text) AND (length(cancel_url) <= 2000))),
    CONSTRAINT kinds_dispatch_check CHECK ((dispatch = ANY (ARRAY['poll'::text, 'sqs'::text]))),
    CONSTRAINT kinds_fixed_has_delays CHECK (((backoff = 'fixed'::text) = (cardinality(backoff_delays) > 0))),
    CONSTRAINT kinds_jitter_check CHECK (((jitter >= (0)::double precision) AND (jitter <= (1)::double precision))),
    CONSTRAINT kinds_life_seconds_check CHECK (((life_seconds >= 60) AND (life_seconds <= 2592000))),
    CONSTRAINT kinds_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 25))),
    CONSTRAINT kinds_max_crashes_check CHECK (((max_crashes >= 1) AND (max_crashes <= 25))),
    CONSTRAINT kinds_max_priority_check CHECK (((max_priority >= '-10'::integer) AND (max_priority <= 10))),
    CONSTRAINT kinds_name_check CHECK ((name ~ '^[a-z0-9_.-]{1,64}$'::text)),
    CONSTRAINT kinds_on_input_error_check CHECK ((on_input_error <> 'refuse'::punchcard.charge)),
    CONSTRAINT kinds_price_check CHECK (((price >= 0) AND (price <= '1000000000000'::bigint))),
    CONSTRAINT kinds_secret_version_check CHECK (((secret_version >= 1) AND (secret_version <= 1000000))),
    CONSTRAINT kinds_timeout_seconds_check CHECK (((timeout_seconds >= 1) AND (timeout_seconds <= 840))),
    CONSTRAINT kinds_url_check CHECK (((url ~ '^https?://'::text) AND (length(url) <= 2000)))
);
CREATE TRIGGER kinds_are_retired_not_deleted BEFORE DELETE ON punchcard.kinds FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('jobs name their kind; set retired_at instead');
CREATE TRIGGER kinds_have_terms BEFORE INSERT OR UPDATE ON punchcard.kinds FOR EACH ROW EXECUTE FUNCTION punchcard.set_terms();

-- By what a caller finds their jobs: each tag, and each pair of the metadata as `key=value`.
CREATE TABLE punchcard.labels (
    account_id uuid NOT NULL,  -- whose job
    label text NOT NULL,  -- a tag, or `key=value`
    job_id uuid NOT NULL,  -- which has it
    CONSTRAINT labels_pkey PRIMARY KEY (account_id, label, job_id)
) PARTITION BY RANGE (job_id);
CREATE TRIGGER labels_never_change BEFORE DELETE OR UPDATE ON punchcard.labels FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('labels', 'what was bought stays as it was');

-- What bounds an account beside its credits; NULL is no bound.
CREATE TABLE punchcard.limits (
    account_id uuid NOT NULL,  -- 00000000-…: all that have no row of their own
    unfinished_jobs integer,  -- how many it may have unfinished
    unfinished_bytes bigint,  -- how many bytes of input these may have
    enqueues_per_minute integer,  -- how many jobs it may buy in a minute
    CONSTRAINT limits_pkey PRIMARY KEY (account_id),
    CONSTRAINT limits_enqueues_per_minute_check CHECK (((enqueues_per_minute >= 1) AND (enqueues_per_minute <= 1000000))),
    CONSTRAINT limits_unfinished_bytes_check CHECK ((unfinished_bytes >= 0)),
    CONSTRAINT limits_unfinished_jobs_check CHECK ((unfinished_jobs >= 0))
);

-- The migrations that were applied.
CREATE TABLE punchcard.migrations (
    name text NOT NULL,  -- As in infra/migrations.
    applied_at timestamp with time zone NOT NULL DEFAULT now(),  -- When.
    CONSTRAINT migrations_pkey PRIMARY KEY (name)
);

-- Entries of the ledger that are of no job's making: append-only. A hold is its job's row, a capture and a release are its outcome's (ADR 16). All of them are numbered 1, 2, 3, … for each account and share, without a gap, by its row's `entries`. An entry says how much moved; its kind says from where to where, so that no sign can be wrong.
CREATE TABLE punchcard.movements (
    account_id uuid NOT NULL,  -- whose balances it moved
    share smallint NOT NULL,  -- of which share of the account
    entry bigint NOT NULL,  -- its number there
    amount bigint NOT NULL,  -- above 0 in a grant, below in an expiry
    available_after bigint NOT NULL,  -- the share's `available` once the entry is in
    held_after bigint NOT NULL,  -- the share's `held` once the entry is in
    created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),  -- while its account was locked
    job_id uuid,  -- what an adjustment gives back for
    kind punchcard.entry_kind NOT NULL,  -- grant, adjust, expire or shift
    idempotency_key text,  -- of all but a shift: nothing moves twice for one
    reason text,  -- why, in the words of whoever moved it
    CONSTRAINT movements_pkey PRIMARY KEY (account_id, share, entry),
    CONSTRAINT movements_amount_fits_kind CHECK (
CASE kind
    WHEN 'grant'::punchcard.entry_kind THEN (amount > 0)
    WHEN 'expire'::punchcard.entry_kind THEN (amount < 0)
    ELSE true
END),
    CONSTRAINT movements_are_of_no_job CHECK ((kind = ANY (ARRAY['grant'::punchcard.entry_kind, 'adjust'::punchcard.entry_kind, 'expire'::punchcard.entry_kind, 'shift'::punchcard.entry_kind]))),
    CONSTRAINT movements_have_keys CHECK (((idempotency_key IS NULL) = (kind = 'shift'::punchcard.entry_kind))),
    CONSTRAINT movements_name_jobs_to_give_back CHECK (((job_id IS NULL) OR ((kind = 'adjust'::punchcard.entry_kind) AND (amount > 0))))
) WITH (autovacuum_freeze_min_age=0, autovacuum_vacuum_insert_scale_factor=0.01, autovacuum_analyze_scale_factor=0.01);
-- The ledger's pages, by time (`find_entries`). What was shifted between shares is nothing to their reader.
CREATE INDEX movements_by_time ON punchcard.movements USING btree (account_id, created_at) WHERE (kind <> 'shift'::punchcard.entry_kind);
-- Nothing moves twice for one key.
CREATE UNIQUE INDEX movements_idempotency_key ON punchcard.movements USING btree (account_id, idempotency_key) WHERE (idempotency_key IS NOT NULL);
-- A second refund is impossible, not just unlikely.
CREATE UNIQUE INDEX movements_one_refund_per_job ON punchcard.movements USING btree (job_id) WHERE (job_id IS NOT NULL);
CREATE TRIGGER movements_are_append_only BEFORE UPDATE ON punchcard.movements FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER movements_are_carried BEFORE DELETE ON punchcard.movements FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_uncarried();
CREATE TRIGGER movements_are_never_emptied BEFORE TRUNCATE ON punchcard.movements FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');

-- The outbox: what is to be said of a job, written by the statement that did it, until somebody has heard or it is given up: then it is in `deliveries`.
CREATE TABLE punchcard.outbox (
    id uuid NOT NULL,  -- the message's `webhook-id`, the same each time it is sent
    account_id uuid NOT NULL,  -- as in jobs
    job_id uuid NOT NULL,  -- of which job
    next_at timestamp with time zone NOT NULL,  -- not before; while it is being sent, when that is given up
    created_at timestamp with time zone NOT NULL DEFAULT now(),  -- when it happened
    event punchcard.event NOT NULL,  -- what happened
    attempt smallint NOT NULL DEFAULT 0,  -- how often it was taken to be sent; each is recorded once
    settled smallint NOT NULL DEFAULT 0,  -- the last attempt whose result is recorded
    put_back smallint NOT NULL DEFAULT 0,  -- how often it was not sent, for no fault of its receiver's
    url text,  -- NULL: the account's, as it is when it is sent
    error text,  -- why the last attempt failed
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
) WITH (fillfactor=70, autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000, autovacuum_vacuum_insert_scale_factor=0.2, autovacuum_analyze_scale_factor=0.2, vacuum_truncate=off);
-- What is due (`claim_deliveries`).
CREATE INDEX outbox_due ON punchcard.outbox USING btree (next_at);
-- Those of one job.
CREATE INDEX outbox_job ON punchcard.outbox USING btree (job_id, id);
-- What was sent and not heard yet, for the operator.
CREATE INDEX outbox_unheard ON punchcard.outbox USING btree (id) WHERE (error IS NOT NULL);
-- Whose are due, account by account (`claim_deliveries`).
CREATE INDEX outbox_waiting ON punchcard.outbox USING btree (account_id, next_at);

-- What came of it. Written once, by the statement that closed the hold; the job's row in the queue goes with it. It is the capture, and the release of what is left of the price.
CREATE TABLE punchcard.outcomes (
    job_id uuid NOT NULL,  -- one final status, one end of the hold
    account_id uuid NOT NULL,  -- as in jobs
    finished_at timestamp with time zone NOT NULL,  -- when it became final
    captured bigint NOT NULL,  -- of its price; the rest was released
    entry bigint,  -- its number in the account's share; NULL: it was deferred, and `deferred_entries` has it, as the balances
    available_after bigint,  -- the share's `available` once it was in
    held_after bigint,  -- the share's `held` once it was in
    lease_token bigint NOT NULL DEFAULT 0,  -- of its last claim
    run_started_at timestamp with time zone,  -- of the run that ended it; NULL: none did
    started_at timestamp with time zone,  -- of its first run, if that is another
    share smallint NOT NULL,  -- as in jobs
    attempt smallint NOT NULL,  -- as in queue, when it ended
    crashes smallint NOT NULL DEFAULT 0,  -- as in queue, when it ended
    status punchcard.final_status NOT NULL,  -- how it ended
    output json,  -- of what succeeded
    error json,  -- {code, message, attempt}
    CONSTRAINT outcomes_pkey PRIMARY KEY (job_id),
    CONSTRAINT outcomes_capture_no_debt CHECK ((captured >= 0)),
    CONSTRAINT outcomes_failed_says_why CHECK (((status <> 'failed'::punchcard.final_status) OR (error IS NOT NULL))),
    CONSTRAINT outcomes_output_iff_succeeded CHECK (((status = 'succeeded'::punchcard.final_status) = (output IS NOT NULL)))
) PARTITION BY RANGE (job_id);
-- The ledger's pages, by time (`find_entries`).
CREATE INDEX outcomes_by_time ON punchcard.outcomes USING btree (account_id, finished_at);
-- An account's jobs that were canceled (`find_jobs`).
CREATE INDEX outcomes_canceled_of_account ON punchcard.outcomes USING btree (account_id, job_id) WHERE (status = 'canceled'::punchcard.final_status);
-- The dead letters, to be found and retried (`redrive`).
CREATE INDEX outcomes_failed ON punchcard.outcomes USING btree (finished_at, job_id) WHERE (status = 'failed'::punchcard.final_status);
-- An account's jobs that failed (`find_jobs`). An index for each status: where row security is on, an enum is compared with no index (its operators are not leakproof), but by its predicate.
CREATE INDEX outcomes_failed_of_account ON punchcard.outcomes USING btree (account_id, job_id) WHERE (status = 'failed'::punchcard.final_status);
CREATE TRIGGER outcomes_are_final BEFORE UPDATE ON punchcard.outcomes FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_unless_erased('outcomes', 'a finished job never changes');
CREATE TRIGGER outcomes_are_kept BEFORE DELETE ON punchcard.outcomes FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');
CREATE TRIGGER outcomes_are_never_emptied BEFORE TRUNCATE ON punchcard.outcomes FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a finished job never changes');

-- What is to be done: one thin row for each unfinished job, with all that changes while it is.
CREATE TABLE punchcard.queue (
    job_id uuid NOT NULL,  -- as in jobs
    account_id uuid NOT NULL,  -- as in jobs
    price bigint NOT NULL,  -- as in jobs
    lease_token bigint NOT NULL DEFAULT 0,  -- rises with each claim, never falls
    lease_expires_at timestamp with time zone,  -- leased (running) until then
    waiting_until timestamp with time zone,  -- running outside, without a lease: called back by then. If neither is set, it is queued
    run_at timestamp with time zone NOT NULL,  -- not before
    expires_at timestamp with time zone NOT NULL,  -- as in jobs
    started_at timestamp with time zone,  -- its first claim
    run_started_at timestamp with time zone,  -- its last claim
    terms_id integer NOT NULL,  -- as in jobs
    bytes integer NOT NULL DEFAULT 0,  -- of the input
    share smallint NOT NULL,  -- as in jobs
    priority smallint NOT NULL,  -- as in jobs
    attempt smallint NOT NULL DEFAULT 0,  -- starts that count: neither crashed, snoozed nor returned
    max_attempts smallint NOT NULL,  -- as in jobs
    crashes smallint NOT NULL DEFAULT 0,  -- starts whose time was up, or whose worker never reported
    has_run boolean NOT NULL DEFAULT false,  -- a run has ended that did something for it, or may have: from then on a cancel costs what its terms' on_cancel says
    kind text NOT NULL,  -- as in jobs
    cancel_requested_at timestamp with time zone,  -- of a running job: its worker is told when it checks in
    progress_percent smallint,  -- of the current run, as its handler said
    progress_message text,  -- of the current run, as its handler said
    progress_at timestamp with time zone,  -- when its handler said so
    checkpoint json,  -- what a run saved for the next one
    webhook jsonb,  -- as in jobs
    error json,  -- of the last attempt that erred: {code, message, attempt}
    CONSTRAINT queue_pkey PRIMARY KEY (job_id),
    CONSTRAINT queue_attempts_are_bounded CHECK (((attempt >= 0) AND (attempt <= max_attempts)))
) WITH (fillfactor=70, autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000, autovacuum_vacuum_insert_scale_factor=0.2, autovacuum_analyze_scale_factor=0.2, vacuum_truncate=off);
-- Claim reads what is due of each kind that it serves by priority, then age: what others serve, and what is delayed and lies behind `now()`, costs it nothing.
CREATE INDEX queue_due ON punchcard.queue USING btree (kind, priority, run_at, job_id) WHERE ((lease_expires_at IS NULL) AND (waiting_until IS NULL));
-- Rescue reads what has lapsed: its lease, its wait, or its life.
CREATE INDEX queue_lapse ON punchcard.queue USING btree (COALESCE(lease_expires_at, waiting_until, expires_at));
CREATE TRIGGER queue_token_never_falls BEFORE UPDATE ON punchcard.queue FOR EACH ROW WHEN ((new.lease_token < old.lease_token)) EXECUTE FUNCTION punchcard.refuse_change('lease_token never falls');

-- For how long history is kept (ADR 20): `punchcard apply` writes it.
CREATE TABLE punchcard.retention (
    only_one boolean NOT NULL DEFAULT true,  -- there is one
    payload_days integer DEFAULT 400,  -- jobs, with all that is theirs, from their purchase; a month goes as a whole; NULL: for ever
    key_days integer DEFAULT 400,  -- idempotency keys, from their first use; NULL: for ever
    money_days integer,  -- entries one by one; NULL: for ever
    archived_before uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- the entries of jobs with lesser ids are in the archive
    carried_before uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- and of these, they are carried
    carrying_before uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'::uuid,  -- or are being carried
    carry_after uuid,  -- behind which account what else moved in that time is carried; NULL: of the first
    keys_block bigint NOT NULL DEFAULT 0,  -- where the search for old keys goes on
    CONSTRAINT retention_pkey PRIMARY KEY (only_one),
    CONSTRAINT retention_key_days_check CHECK (((key_days >= 90) AND (key_days <= 36500))),
    CONSTRAINT retention_keys_outlive_payloads CHECK ((COALESCE(key_days, 100000) >= COALESCE(payload_days, 100000))),
    CONSTRAINT retention_money_days_check CHECK (((money_days >= 90) AND (money_days <= 36500))),
    CONSTRAINT retention_money_outlives_payloads CHECK ((COALESCE(money_days, 100000) >= COALESCE(payload_days, 100000))),
    CONSTRAINT retention_only_one_check CHECK (only_one),
    CONSTRAINT retention_payload_days_check CHECK (((payload_days >= 90) AND (payload_days <= 36500)))
);

-- A job is retried once; who wants more retries the retry.
CREATE TABLE punchcard.retries (
    job_id uuid NOT NULL,  -- what failed, or was canceled
    retried_as uuid NOT NULL,  -- the job that is its other try
    CONSTRAINT retries_pkey PRIMARY KEY (job_id)
);
CREATE TRIGGER retries_are_never_emptied BEFORE TRUNCATE ON punchcard.retries FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('a job is retried once');
CREATE TRIGGER retries_never_change BEFORE DELETE OR UPDATE ON punchcard.retries FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('a job is retried once');

-- Service tokens: the team's own backend and payment system. Only the SHA-256 is kept; two are valid at a time (the two slots), so that one can be rotated without a gap.
CREATE TABLE punchcard.service_tokens (
    name text NOT NULL,  -- whose
    slot smallint NOT NULL,  -- the older or the newer
    scopes text[] NOT NULL,  -- what it may
    sha256 bytea NOT NULL,  -- of the token
    created_at timestamp with time zone NOT NULL DEFAULT now(),  -- when it was made
    CONSTRAINT service_tokens_pkey PRIMARY KEY (name, slot),
    CONSTRAINT service_tokens_name_check CHECK ((name ~ '^[a-z0-9_.-]{1,64}$'::text)),
    CONSTRAINT service_tokens_scopes_check CHECK (((cardinality(scopes) > 0) AND (scopes <@ ARRAY['enqueue'::text, 'grant'::text, 'operate'::text]))),
    CONSTRAINT service_tokens_sha256_check CHECK ((octet_length(sha256) = 32)),
    CONSTRAINT service_tokens_sha256_key UNIQUE (sha256),
    CONSTRAINT service_tokens_slot_check CHECK ((slot = ANY (ARRAY[1, 2])))
);

-- What ticks do beside the jobs, and when next (`keep_up`).
CREATE TABLE punchcard.upkeep (
    task text NOT NULL,  -- as in functions/worker/src/upkeep.rs
    next_at timestamp with time zone NOT NULL DEFAULT now(),  -- due from then on
    done_at timestamp with time zone,  -- when there was nothing left to do of it
    error text,  -- why it has to wait; NULL: it does not
    CONSTRAINT upkeep_pkey PRIMARY KEY (task)
) WITH (fillfactor=50);

-- Where an account is told of its jobs, but for those that name a webhook of their own. Its secret is derived (signing.rs) and signs for both; the last one still does for a day after it was rotated.
CREATE TABLE punchcard.webhooks (
    account_id uuid NOT NULL,  -- who is told
    url text,  -- where; NULL: nowhere
    events text[] NOT NULL DEFAULT '{job.succeeded,job.failed,job.canceled}'::text[],  -- of what
    secret_version integer NOT NULL DEFAULT 1,  -- of the secret that messages are signed by
    rotated_at timestamp with time zone,  -- since when
    disabled_at timestamp with time zone,  -- it answered 410 (Gone)
    CONSTRAINT webhooks_pkey PRIMARY KEY (account_id),
    CONSTRAINT webhooks_events_check CHECK ((events <@ ARRAY['job.running'::text, 'job.succeeded'::text, 'job.failed'::text, 'job.canceled'::text])),
    CONSTRAINT webhooks_url_check CHECK (((url ~ '^https?://'::text) AND (length(url) <= 2000)))
);

-- The archive, entry by entry: holds, and ends with what was captured.
-- VIEW punchcard.archived_entries (
--     account_id uuid,
--     share smallint,
--     entry bigint,
--     job_id uuid,
--     price bigint,
--     captured bigint,
--     available_after bigint,
--     held_after bigint,
--     at timestamp with time zone
-- )

-- All of it at once: for a look at what is small. `punchcard credits audit` goes part by part.
-- VIEW punchcard.audit (
--     invariant text,
--     subject uuid,
--     finding text
-- )

-- Whoever looks sees every row, and so do the functions.
-- VIEW punchcard.audit_i0 (
--     subject uuid,
--     finding text
-- )

-- What an account has, over all its shares, with what waits to be entered.
-- VIEW punchcard.balances (
--     account_id uuid,
--     available bigint,
--     held bigint
-- )

-- The end of each hold, with its number and the balances after it.
-- VIEW punchcard.ends (
--     job_id uuid,
--     account_id uuid,
--     share smallint,
--     price bigint,
--     captured bigint,
--     finished_at timestamp with time zone,
--     waits boolean,
--     entry bigint,
--     available_after bigint,
--     held_after bigint
-- )

-- The ledger with what each entry did to the two balances.
-- VIEW punchcard.entries (
--     account_id uuid,
--     id bigint,
--     kind punchcard.entry_kind,
--     amount bigint,
--     share smallint,
--     available_after bigint,
--     held_after bigint,
--     job_id uuid,
--     idempotency_key text,
--     reason text,
--     created_at timestamp with time zone,
--     available_delta bigint,
--     held_delta bigint
-- )

-- From whom row security hides rows that they must see: whoever asks, the owner, as whom the functions run, and the functions' role. By the catalog alone: a look at rows that are hidden finds nothing wrong.
-- VIEW punchcard.hidden (
--     hidden_table text,
--     hidden_from text,
--     is_owner boolean
-- )

-- Every job as it is now.
-- VIEW punchcard.jobs_now (
--     id uuid,
--     account_id uuid,
--     kind text,
--     status text,
--     price bigint,
--     priority smallint,
--     attempt smallint,
--     max_attempts smallint,
--     input json,
--     output json,
--     error json,
--     run_at timestamp with time zone,
--     created_at timestamp with time zone,
--     started_at timestamp with time zone,
--     finished_at timestamp with time zone,
--     expires_at timestamp with time zone,
--     batch_id uuid,
--     captured bigint,
--     crashes smallint,
--     cancel_requested_at timestamp with time zone,
--     progress_percent smallint,
--     progress_message text,
--     progress_at timestamp with time zone,
--     retry_of uuid,
--     metadata jsonb,
--     tags text[],
--     waiting_until timestamp with time zone,
--     webhook jsonb
-- )

-- The jobs that are not archived: the entries of the others are in the archive, and perhaps still here.
-- VIEW punchcard.kept_jobs (
--     account_id uuid,
--     id uuid,
--     price bigint,
--     entry bigint,
--     available_after bigint,
--     held_after bigint,
--     scheduled_at timestamp with time zone,
--     expires_at timestamp with time zone,
--     created_at timestamp with time zone,
--     terms_id integer,
--     share smallint,
--     priority smallint,
--     max_attempts smallint,
--     kind text,
--     batch_id uuid,
--     retry_of uuid,
--     retry jsonb,
--     metadata jsonb,
--     tags text[],
--     webhook jsonb,
--     input json
-- )

-- What came of the jobs that are not archived.
-- VIEW punchcard.kept_outcomes (
--     job_id uuid,
--     account_id uuid,
--     finished_at timestamp with time zone,
--     captured bigint,
--     entry bigint,
--     available_after bigint,
--     held_after bigint,
--     lease_token bigint,
--     run_started_at timestamp with time zone,
--     started_at timestamp with time zone,
--     share smallint,
--     attempt smallint,
--     crashes smallint,
--     status punchcard.final_status,
--     output json,
--     error json
-- )

-- Every movement of credits. `id` is its number: of an account (of one that is spread: of a share) they count 1, 2, 3, … without a gap, with those of jobs that were free, which move nothing and are not shown. A capture and a release of one end share it. What is carried has the number of its last entry.
-- VIEW punchcard.ledger (
--     account_id uuid,
--     id bigint,
--     kind punchcard.entry_kind,
--     amount bigint,
--     share smallint,
--     available_after bigint,
--     held_after bigint,
--     job_id uuid,
--     idempotency_key text,
--     reason text,
--     created_at timestamp with time zone
-- )

-- What is or was said of jobs. `next_at`: when it is said next; NULL: it was heard, or is given up.
-- VIEW punchcard.messages (
--     id uuid,
--     account_id uuid,
--     job_id uuid,
--     event punchcard.event,
--     url text,
--     attempt smallint,
--     put_back smallint,
--     next_at timestamp with time zone,
--     created_at timestamp with time zone,
--     delivered_at timestamp with time zone,
--     error text
-- )

-- The tables of each that is kept by month, in their order: a month's, all before the first one's, the spare one for what is bought behind the last, and the one of ids that tell no time (jobs of old systems).
-- VIEW punchcard.periods (
--     of_table text,
--     name text,
--     first_id uuid,
--     is_spare boolean
-- )

-- Every run of a job that has ended, and how.
-- VIEW punchcard.runs (
--     job_id uuid,
--     number bigint,
--     attempt smallint,
--     ended text,
--     started_at timestamp with time zone,
--     ended_at timestamp with time zone,
--     error json
-- )

-- Jobs that failed or were canceled, each kind of end by an index of its own (`find_unsuccessful_jobs`).
-- VIEW punchcard.unsuccessful_jobs (
--     account_id uuid,
--     job_id uuid,
--     status text
-- )

-- What waits to be entered, with the number and the balances that it would get now.
-- VIEW punchcard.waiting_entries (
--     account_id uuid,
--     share smallint,
--     job_id uuid,
--     entry bigint,
--     available_after bigint,
--     held_after bigint
-- )

-- Who may what: the one list, of this database's roles and schemas. `grant_access` grants it, and `punchcard doctor` holds it against what is granted. An object of `columns` is granted by these alone.
-- FUNCTION punchcard.access()
--     RETURNS TABLE(role text, privilege text, type text, object text, columns text)

-- Takes the next step of what retention asks for (ADR 20), and answers whether there is another: of the oldest month that is past it, first its entries go into the archive, some thousand jobs a step; an hour later, when nobody reads as of before, its tables leave their places and are dropped, one a step. Raises why a month has to wait: that is its turn before any later one. What was done is done once: a step that dies is taken again.
-- FUNCTION punchcard.apply_retention()
--     RETURNS boolean

-- The archive's rows that have entries of the accounts behind p_after up to p_last.
-- FUNCTION punchcard.archive_between(p_after uuid, p_last uuid)
--     RETURNS SETOF punchcard.archive

-- For `apply_retention`: the entries of a month's next jobs, up to p_limit of them, in the archive: some hundred in a row, so that they are compressed, whosesoever they are. Behind the last of them the month is archived: from that moment on its entries are read there alone.
-- FUNCTION punchcard.archive_jobs(p_month punchcard.archived_months, p_limit bigint)
--     RETURNS void

-- The rows of the archive of a month that have entries of an account: those that begin with it, and the one before these that ends with it, or behind it.
-- FUNCTION punchcard.archive_of(p_month uuid, p_account_id uuid)
--     RETURNS SETOF punchcard.archive

-- What is in the archive of a job: its account, and what was captured for it. Without its account it is looked for in all of its month: for operators.
-- FUNCTION punchcard.archived_job(p_job_id uuid, p_account_id uuid DEFAULT NULL::uuid, OUT account_id uuid, OUT captured bigint)
--     RETURNS record

-- For `make_periods`: puts a table's new months, whose tables are there, in their places, and its spare table in its next one (`wanted_periods`). Who reads or writes the table waits meanwhile: that is as long as it takes to look at what the spare table has.
-- FUNCTION punchcard.attach_periods(p_table text, p_spare text, p_spare_from uuid, p_this_month timestamp without time zone, p_last_month timestamp without time zone)
--     RETURNS void

-- What is wrong with the next accounts behind p_after (NULL: from the first on): as many as have p_entries entries, and one at least. `next_after` is behind which to go on; NULL: there is none. Without a finding there is one row, which says that, and how many entries were looked at, alone.
-- FUNCTION punchcard.audit_accounts(p_after uuid, p_entries bigint DEFAULT 40000)
--     RETURNS TABLE(invariant text, subject uuid, finding text, next_after uuid, entries bigint), as its owner

-- What is wrong with the accounts behind p_after up to p_last, and with their jobs (I1 to I6 in docs/ARCHITECTURE.md): no row when all is well. Each account is looked at by itself, so that all of them can be, one part after the other (`audit_accounts`). What a part has is read once.
-- FUNCTION punchcard.audit_between(p_after uuid, p_last uuid)
--     RETURNS TABLE(invariant text, subject uuid, finding text)

-- For upkeep: looks at the next part of the accounts, and then of what names jobs, and notes what is wrong; true if there is another part. Once all is through, what was not seen again is dropped, and the round begins anew with the next call. `upkeep` says how many findings there are.
-- FUNCTION punchcard.audit_next(p_entries bigint DEFAULT 40000, p_most bigint DEFAULT 1000000)
--     RETURNS boolean

-- What is wrong with rows that name a job, of the next jobs behind p_after (NULL: from the first on), some p_rows of each table; answers as `audit_accounts` does.
-- FUNCTION punchcard.audit_rows(p_after uuid, p_rows bigint DEFAULT 20000)
--     RETURNS TABLE(invariant text, subject uuid, finding text, next_after uuid), as its owner

-- What is wrong with rows that name a job, of those behind p_after up to p_last, and no row when all is well: what is in the queue, waits to be entered, or is or was to be said, although there is no such job, or though its time is over.
-- FUNCTION punchcard.audit_rows_between(p_after uuid, p_last uuid)
--     RETURNS TABLE(invariant text, subject uuid, finding text)

-- What an account has, at the source too, if that answers.
-- FUNCTION punchcard.balance(p_account_id uuid)
--     RETURNS TABLE(available bigint, held bigint), as its owner

-- How the table ends by name that takes the place of all that was before p_end, as `wanted_periods` has it.
-- FUNCTION punchcard.before_name(p_end uuid)
--     RETURNS text

-- Tells Realtime of the jobs that a statement ended, on the private channels `punchcard:<account>`. A message is a hint: neither a failure to send it nor a lock that it waits for holds up what it tells of. What would take longer than a tenth of a second in all is not told.
-- FUNCTION punchcard.broadcast_outcomes()
--     RETURNS trigger, as its owner

-- What somebody outside says of the run p_lease_token that waits for them, or whose worker has yet to say that it does. With `progress` it goes on; `complete`, `retry` (after p_delay seconds, failed if that was the last attempt), `fail` and `reject` end it, once. p_used: as in `settle`. Answers how the job stands then, and whether it is to be canceled. Raises PT404 not_found · PT410 gone · PT409 callback_used (the job is final), callback_expired (another run, or its time is up).
-- FUNCTION punchcard.call_back(p_job_id uuid, p_lease_token bigint, p_verdict text, p_delay double precision DEFAULT 0, p_output text DEFAULT NULL::text, p_code text DEFAULT NULL::text, p_message text DEFAULT NULL::text, p_used bigint DEFAULT NULL::bigint, p_percent smallint DEFAULT NULL::smallint, OUT status text, OUT cancel_requested boolean)
--     RETURNS record, as its owner

-- How to call the team's function that moves credits: its first argument that can be an account is the account, its first number the amount; p_constants has the values of others by name; those that have defaults are left out.
-- FUNCTION punchcard.call_of_mover(p_function text, p_constants jsonb)
--     RETURNS text

-- Cancels a job, of p_account_id or, if NULL, of anybody. A queued one is canceled at once: 'canceled'. A running one is asked to stop, and its worker told when it checks in: 'running'; if it succeeds first, it has. One that waits outside is canceled at once, and the kind's `cancel_url` told. Before its first run it costs nothing; once it runs, waits, or has run (`has_run`), the kind's `on_cancel` says what it costs. Refuses by raising: PT404 not_found · PT409 not_cancelable (final; or the kind refuses).
-- FUNCTION punchcard.cancel(p_job_id uuid, p_account_id uuid DEFAULT NULL::uuid)
--     RETURNS text, as its owner

-- For `erase_payloads`: cancels those of an account's jobs that are not finished, as `cancel` does: what is queued, or waits outside, at once; what runs is asked to stop. What cannot be canceled any more is left, and so is what somebody else is at: answers the first of these.
-- FUNCTION punchcard.cancel_all(p_account_id uuid, p_ids uuid[])
--     RETURNS uuid

-- A JSON value as text that is the same whatever its spacing and the order of its keys, and not much longer than it was sent: as jsonb writes it, but for numbers with an exponent, of which jsonb would write every digit (1e308 has 309). These count as they are written, so that 1e2 is neither 100 nor 1E2; other numbers count digit for digit too, so that 1.0 is not 1.00.
-- FUNCTION punchcard.canonical(p_value json)
--     RETURNS text

-- What is captured of a job's price when a verdict ends it. The planner puts this in its caller's place, so that what is not asked for is not looked up: the last six are named once each, and no part of it is a query.
-- FUNCTION punchcard.captured(p_verdict punchcard.verdict, p_price bigint, p_used bigint, p_to_cancel boolean, p_under_way boolean, p_has_run boolean, p_metered boolean, p_on_cancel punchcard.charge, p_on_input_error punchcard.charge)
--     RETURNS bigint

-- For `apply_retention`: once the oldest month in the archive is past the retention of money, carries its entries, some rows of the archive a step, and then what else moved until its end, some hundred accounts a step; false if there is nothing to carry. What is carried is added to, and goes by the same transaction: a reader finds an entry here or there. It never changes, so that nobody has to be waited for.
-- FUNCTION punchcard.carry_entries()
--     RETURNS boolean

-- Raises why the entries of a month that is past the retention of money are not carried yet: of an account that has grants with a date, what came in since it was last dealt with is still to be counted (`expire_credits`).
-- FUNCTION punchcard.check_carry()
--     RETURNS void

-- What a worker says of the jobs that it is running, and hears: notes their progress and what they save, and answers those of which something was noted, and those that are to be canceled. NULLs are nothing new. A job that somebody else holds is not waited for: what is said of it is to be said again.
-- FUNCTION punchcard.check_in(p_job_ids uuid[], p_lease_tokens bigint[], p_percents smallint[], p_messages text[], p_checkpoints text[])
--     RETURNS TABLE(job_id uuid, noted boolean, to_cancel boolean), as its owner

-- Refuses what no worker could read, or should.
-- FUNCTION punchcard.check_input(p_input json)
--     RETURNS void

-- Refuses metadata that could not be found again, or are too many or too long.
-- FUNCTION punchcard.check_metadata(p_metadata jsonb)
--     RETURNS void

-- Raises what a month, and all before it, has to wait for before it may go: a job that is unfinished, a message that nobody has heard, an entry that waits for its account.
-- FUNCTION punchcard.check_month(p_end uuid)
--     RETURNS void

-- Refuses what is no movement from outside: without an account, an amount or a key, of too much, or a charge that names a job.
-- FUNCTION punchcard.check_movement(p_kind punchcard.entry_kind, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text)
--     RETURNS void

-- Vets what a job asks for beside its kind's policy: an object with, as wished, `retry`, `metadata`, `tags`, `webhook`, `retry_of`. Answers NULL for what it does not ask for.
-- FUNCTION punchcard.check_options(p_options jsonb, p_max_attempts integer, OUT max_attempts smallint, OUT retry jsonb, OUT metadata jsonb, OUT tags text[], OUT webhook jsonb, OUT retry_of uuid)
--     RETURNS record

-- Prepares another try of p_job_id, which must be failed or canceled, of this account, and not retried yet. Locks the account, and notes what it is retried as: p_retried_as, or a new id; answers that. Who retries it just now is waited for. Raises PT404 not_found · PT410 gone · PT409 not_retryable, already_retried · PT403 account_closed.
-- FUNCTION punchcard.check_retry_of(p_job_id uuid, p_account_id uuid, p_retried_as uuid)
--     RETURNS uuid

-- Refuses a `retry` that is none: what a job asks for instead of its kind's policy, within the kind's bounds.
-- FUNCTION punchcard.check_retry_policy(p_retry jsonb, p_max_attempts integer)
--     RETURNS void

-- The type of the column that names the account in the team's table p_oid, called p_table. Refuses a table that has not such columns, or may have two rows for an account.
-- FUNCTION punchcard.check_source_table(p_oid oid, p_table text, p_account_column text, p_balance_column text, OUT account_type text)
--     RETURNS text

-- A job's tags, each once, in the order of their bytes; refuses what is no list of tags.
-- FUNCTION punchcard.check_tags(p_tags jsonb, OUT tags text[])
--     RETURNS text[]

-- Vets a webhook, {url, events}: events are those that end a job unless it says otherwise. Where it may point to is vetted by whoever sends, address by address.
-- FUNCTION punchcard.check_webhook(p_webhook jsonb)
--     RETURNS jsonb

-- queued -> running for up to p_limit due jobs, by priority, then age, under a lease of at most p_lease seconds; those in p_named, which the worker was woken for, before all others. Only kinds that the worker serves: p_kinds, p_http, p_budget and p_woken are as in `served_kinds`. p_after_* say, for a kind and a priority, the `run_at` (in microseconds since 1970) and id of the last job that this worker claimed of these: the next claim starts there, and never walks again past the dead rows of its own earlier claims, which no vacuum removes while a long transaction is open anywhere (ADR 0007). But for what is due since less than five seconds: jobs are not committed in the order of their `run_at`. What a claim passes over for its start, the next one without a start finds.
-- FUNCTION punchcard.claim(p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision, p_after_kinds text[] DEFAULT '{}'::text[], p_after_priorities smallint[] DEFAULT '{}'::smallint[], p_after_run_ats bigint[] DEFAULT '{}'::bigint[], p_after_ids uuid[] DEFAULT '{}'::uuid[], p_named uuid[] DEFAULT '{}'::uuid[], p_woken boolean DEFAULT false)
--     RETURNS TABLE(job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint, input text, url text, secret_version integer, retired boolean, timeout_seconds integer, backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision, priority smallint, run_at_micros bigint, price bigint, metered boolean, backoff text, backoff_delays integer[], jitter double precision, retry text, cancel_url text, callback_seconds integer, checkpoint text, told boolean), as its owner

-- Takes up to p_limit messages to send, and keeps them for p_lease seconds: then another worker may. No account's are taken before another's because they are more, or older: each that has any due gets an even share, and if p_spare one share is left over. p_accounts, of which the caller has messages already or wants none, get up to p_rooms. Answers where each message goes and by which versions of the account's secret it is signed, with the job as this statement sees it: as what is said of it left it, or later. url is NULL if the webhook is gone meanwhile, or the account erased. Each row says, and one without a message if none was taken, whether there may be `more`, and behind which account (`walked`) it was not looked for.
-- FUNCTION punchcard.claim_deliveries(p_limit integer, p_lease double precision, p_spare boolean DEFAULT false, p_accounts uuid[] DEFAULT '{}'::uuid[], p_rooms integer[] DEFAULT '{}'::integer[], p_after uuid DEFAULT '00000000-0000-0000-0000-000000000000'::uuid)
--     RETURNS TABLE(id uuid, event text, url text, attempt smallint, put_back smallint, created_at timestamp with time zone, secret_version integer, old_secret_version integer, kind_secret_version integer, job punchcard.jobs_now, more boolean, walked uuid), as its owner

-- Claims as `claim` does, job by job, for when one of them cannot be claimed at all (a trigger of the team's, a row that was changed by hand): that one stays as it is, and keeps no other from being claimed. Accounts come in any order, so that none is always the first, and one whose job was refused is passed over. Ends after some seconds.
-- FUNCTION punchcard.claim_singly(p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision, p_woken boolean)
--     RETURNS TABLE(job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint, input text, url text, secret_version integer, retired boolean, timeout_seconds integer, backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision, priority smallint, run_at_micros bigint, price bigint, metered boolean, backoff text, backoff_delays integer[], jitter double precision, retry text, cancel_url text, callback_seconds integer, checkpoint text, told boolean), as its owner

-- For `erase_payloads`: takes out of finished jobs of an account what its users and workers wrote; answers how many jobs had some of it. Messages first: what is heard meanwhile is in `deliveries` by then.
-- FUNCTION punchcard.clear_payloads(p_account_id uuid, p_ids uuid[])
--     RETURNS bigint

-- What is left now of an account's grants with a date, of those that had some when it was last dealt with: what was spent since is taken from what lapses first. What came in since, but for such grants, lapses never.
-- FUNCTION punchcard.dated_left(p_account_id uuid)
--     RETURNS TABLE(entry bigint, expires_at timestamp with time zone, left_over bigint)

-- Deals what an account has available evenly over the first p_spread of its shares; p_least of it, at least, to share p_share. Answers what there is in all; moves nothing if that is less. With p_free, what it has on shares that nobody else holds, if that is enough: else all shares are locked, in their order.
-- FUNCTION punchcard.deal_credits(p_account_id uuid, p_spread integer, p_share integer, p_least bigint, p_free boolean DEFAULT false)
--     RETURNS bigint

-- Takes what an account has spent since it was last dealt with from its grants with a date, from what lapses first (ADR 23), and answers what it holds for unfinished jobs: by one statement, so that nothing is spent between the look and the note of it. For whoever holds the account's share 0: no credits come in meanwhile.
-- FUNCTION punchcard.deal_spent(p_account_id uuid)
--     RETURNS bigint

-- For `apply_retention`: takes a month, and all before it, out of the next table that is kept by month; false if there is none left to take. In its place comes an empty one, which takes nothing in: for whoever asks for an old id. Who reads or writes the table waits meanwhile, for a few milliseconds.
-- FUNCTION punchcard.detach_month(p_end uuid)
--     RETURNS boolean

-- Makes p_amount available, drawn from the source as far as it is missing. Answers what there is in all; moves nothing if that is less.
-- FUNCTION punchcard.draw_credits(p_account_id uuid, p_amount bigint)
--     RETURNS bigint

-- How many whole credits can be drawn of a balance at the source: none below 0, and no more than an account may hold.
-- FUNCTION punchcard.drawable(p_balance numeric)
--     RETURNS bigint

-- For `attach_periods`: moves what the spare table has of the new tables' time to these, in one statement, so that it is looked through once. None of them is attached yet, so that none has the triggers that tell others of a row: of what moves they have heard.
-- FUNCTION punchcard.empty_spare(p_table text, p_spare text, p_spare_from uuid, p_this_month timestamp without time zone, p_last_month timestamp without time zone)
--     RETURNS void

-- Buys a job: key, price, hold, job and its place in the queue in one call, all or nothing. The job's row is the hold. Answers what the caller does not know; `replayed` when the key had bought the job before (jobs_now has it as it is now); `wake_after`, in seconds, when a wake-up is wanted for it. A priority is at most its kind's `max_priority`: a greater one is refused, but that of a retry, and 0, which is said for none, are lowered to it. Refuses by raising: PT402 insufficient_credits · PT403 account_closed · PT422 unknown_kind, idempotency_mismatch, invalid_*, over_limit · PT429 too_many_*
-- FUNCTION punchcard.enqueue(p_account_id uuid, p_kind text, p_input json DEFAULT '{}'::json, p_key text DEFAULT NULL::text, p_priority integer DEFAULT 0, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_options jsonb DEFAULT NULL::jsonb, OUT job_id uuid, OUT price bigint, OUT max_attempts smallint, OUT run_at timestamp with time zone, OUT created_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT replayed boolean, OUT wake_after double precision, OUT priority smallint)
--     RETURNS record, as its owner

-- Buys up to 1,000 jobs of one account in one call, all or nothing: p_jobs is an array, of up to 5 MiB, of objects with `kind` and, as wished, `input`, `priority`, `run_at`, `retry`, `metadata`, `tags`, `webhook`. One hold for each. The key names the whole batch. Answers the jobs in their order. Refuses as `enqueue` does, and says which job, but for a bad input.
-- FUNCTION punchcard.enqueue_batch(p_account_id uuid, p_jobs json, p_key text DEFAULT NULL::text)
--     RETURNS TABLE(id uuid, kind text, status text, price bigint, replayed boolean, wake_after double precision), as its owner

-- Enters what was deferred for these jobs, or, without any, for up to 1,000 accounts of which something waits: of whoever's row can be had within p_patience milliseconds in all. The others' waits for whoever holds them next, and so does what the database refuses to enter, which the server's log tells: it keeps no other waiting.
-- FUNCTION punchcard.enter_deferred(p_job_ids uuid[], p_patience integer)
--     RETURNS void

-- The numbered entries of a share that were made from p_since on, of each sort the first p_limit in the order of time: kept and archived, those of free jobs and shifts too. `delta`s are what each did to the balances; of one end what was captured and released is one entry. Of each month's archive the first p_rows that have some; NULL: all. In a row the times are in no order.
-- FUNCTION punchcard.entries_since(p_account_id uuid, p_share smallint, p_since timestamp with time zone, p_limit bigint, p_rows bigint)
--     RETURNS TABLE(entry bigint, kind text, available_delta bigint, held_delta bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, created_at timestamp with time zone, at timestamp with time zone)

-- For `carry_entries`: the entries of rows of a month's archive, or the movements of accounts until its end, each with what it did to the two balances, when, and the line that is hashed. What gave back for a job stays as long as its job's entries: it says that no more is given back.
-- FUNCTION punchcard.entries_to_carry(p_rows tid[], p_accounts uuid[], p_month uuid, p_end_at timestamp with time zone)
--     RETURNS TABLE(account_id uuid, share smallint, entry bigint, available_delta bigint, held_delta bigint, at timestamp with time zone, line text)

-- Closes an account for good (ADR 21): from now on it buys nothing, is granted nothing, and has no job that anybody may read. Its payloads are cleared by `erase_payloads`, step by step. Asked again, it answers how far that is. Raises PT404 not_found, if there is neither such an account nor a webhook of its.
-- FUNCTION punchcard.erase_account(p_account_id uuid)
--     RETURNS punchcard.erasures, as its owner

-- Takes the next step of an erasure (ADR 21): of p_account_id's, or of the one that was asked for first; answers whether there is another step to take now. One that fails is tried again some minutes later, and keeps no other waiting: `erasures` says why.
-- FUNCTION punchcard.erase_payloads(p_account_id uuid DEFAULT NULL::uuid)
--     RETURNS boolean, as its owner

-- For `erase_payloads`: first messages that nobody has heard go; then, some hundred jobs a step, what is unfinished is canceled, or asked to stop, and what is finished loses its payloads; then keys. What was still unfinished, or was just being sent, is looked at again some minutes later, until there is nothing. What was done is done: a step that dies is taken again. Answers whether there is another step to take now.
-- FUNCTION punchcard.erase_step(p_erasure punchcard.erasures)
--     RETURNS boolean

-- What is left of an error of an account that is erased: that there was one, of which attempt, and whether the input was to blame, which says what it cost.
-- FUNCTION punchcard.erased_error(p_error json)
--     RETURNS json

-- Of whom grants are taken back, for a REVOKE: everybody, and the roles to which a default privilege may have given something by name (Supabase's do).
-- FUNCTION punchcard.everybody_else()
--     RETURNS text

-- For upkeep: takes what is left of the grants of one account whose time is over, of up to 200 of them, and answers whether there may be more. What is held belongs to what lapses first, and is taken once it comes back, if it does. Nobody is waited for: an account that somebody holds, or that fails, is looked at again some minutes later, and keeps no other waiting.
-- FUNCTION punchcard.expire_credits()
--     RETURNS boolean

-- Of `find_entries`, what is in the archive, and what is carried: up to p_limit entries, none of them before p_floor. Reads the rows of the archive that a page of this length needs, newest first.
-- FUNCTION punchcard.find_archived(p_account_id uuid, p_before_at timestamp with time zone, p_before_key uuid, p_before_part smallint, p_floor timestamp with time zone, p_limit bigint)
--     RETURNS TABLE(at timestamp with time zone, key uuid, part smallint, entry bigint, kind text, available bigint, held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, share smallint, created_at timestamp with time zone)

-- Of `find_entries`, what became of the holds: of each end what was captured and what was released, as far as these are not 0, with the numbers that they have, or will have once they are entered.
-- FUNCTION punchcard.find_ends(p_account_id uuid, p_before_at timestamp with time zone, p_before_key uuid, p_before_part smallint, p_limit bigint)
--     RETURNS TABLE(at timestamp with time zone, key uuid, part smallint, entry bigint, kind text, available bigint, held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, share smallint, created_at timestamp with time zone)

-- A page of an account's ledger, newest first: up to p_limit entries, kept, archived or carried, but not what was shifted between its shares, before the one at p_at (in microseconds since 1970) of p_key and p_part. In the order of their time; what has the same, in that of `key`: the job's id, or a number of its own. Of one end the capture (1) comes before the release (2). Walks past 10,000 jobs at most, which were free, and as many ends. `next_*` is where the next page begins, in each row; if there may be one, and no entry, there is one row, of that alone.
-- FUNCTION punchcard.find_entries(p_account_id uuid, p_at bigint, p_key uuid, p_part smallint, p_limit bigint)
--     RETURNS TABLE(id bigint, kind text, available_delta bigint, held_delta bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, created_at timestamp with time zone, share smallint, next_at bigint, next_key uuid, next_part smallint), as its owner

-- The dead letters, newest first: of a kind, an error code, an account, finished within a time; up to p_limit of them, older than the one that finished at p_before_at and has the id p_before_id. Walks past 10,000 others at most. `next_*` is behind which the next page begins, of one that came short although there may be more; if there is no job then, there is one row, of that alone.
-- FUNCTION punchcard.find_failed(p_kind text, p_code text, p_account_id uuid, p_from timestamp with time zone, p_until timestamp with time zone, p_limit bigint, p_before_at timestamp with time zone, p_before_id uuid)
--     RETURNS TABLE(job_id uuid, account_id uuid, kind text, price bigint, captured bigint, attempt smallint, crashes smallint, finished_at timestamp with time zone, error json, retried_as uuid, next_at timestamp with time zone, next_id uuid)

-- Of `find_entries`, the holds: the jobs that were not free. p_before_id is what an id is at most, so that an index finds them.
-- FUNCTION punchcard.find_holds(p_account_id uuid, p_before_at timestamp with time zone, p_before_key uuid, p_before_part smallint, p_before_id uuid, p_limit bigint)
--     RETURNS TABLE(at timestamp with time zone, key uuid, part smallint, entry bigint, kind text, available bigint, held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, share smallint, created_at timestamp with time zone)

-- The ids of an account's jobs, newest first, before p_before: up to p_limit of those of some statuses (with commas between them) and one kind, if these are given, bought within a time, that have all of p_labels. Walks past 10,000 others at most (for each status), whatever the history. `next_before` is where the next page begins, also if nothing was found so far; NULL when there is no more. Of an account that is erased, none.
-- FUNCTION punchcard.find_jobs(p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint, p_created_after timestamp with time zone DEFAULT NULL::timestamp with time zone, p_created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT ids uuid[], OUT next_before uuid)
--     RETURNS record, as its owner

-- Of `find_jobs`, those that have all of p_labels, perhaps of one status and kind. `walked` is the label that it went by.
-- FUNCTION punchcard.find_labeled_jobs(p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint, OUT ids uuid[], OUT next_before uuid, OUT walked text)
--     RETURNS record

-- Of `find_jobs`, those of one kind, or that succeeded: by a look at each.
-- FUNCTION punchcard.find_matching_jobs(p_account_id uuid, p_status text, p_kind text, p_before uuid, p_limit bigint, OUT ids uuid[], OUT next_before uuid)
--     RETURNS record

-- Of `find_entries`, what moved from outside; in the order of their time, then of their numbers.
-- FUNCTION punchcard.find_movements(p_account_id uuid, p_before_at timestamp with time zone, p_before_key uuid, p_limit bigint)
--     RETURNS TABLE(at timestamp with time zone, key uuid, part smallint, entry bigint, kind text, available bigint, held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, share smallint, created_at timestamp with time zone)

-- Of `find_jobs`, any: those that were bought last. `recent` is how far back it looked first.
-- FUNCTION punchcard.find_newest_jobs(p_account_id uuid, p_before uuid, p_limit bigint, OUT ids uuid[], OUT next_before uuid, OUT recent uuid)
--     RETURNS record

-- The dead letters that were not retried yet, in the order of a redrive, oldest first: of a kind, an error code, an account, finished within a time; up to p_limit of them, behind the one that finished at p_after_at and has the id p_after_id. Walks past 10,000 others at most, and says so as `find_failed` does.
-- FUNCTION punchcard.find_redrivable(p_kind text, p_code text, p_account_id uuid, p_from timestamp with time zone, p_until timestamp with time zone, p_limit bigint, p_after_at timestamp with time zone, p_after_id uuid)
--     RETURNS TABLE(job_id uuid, account_id uuid, kind text, price bigint, captured bigint, attempt smallint, crashes smallint, finished_at timestamp with time zone, error json, next_at timestamp with time zone, next_id uuid)

-- A page of an account's statement of the month that begins at p_month: `shares` says of each share which numbers it has, from `first` to before `behind`, with the balances before and after; then come up to p_limit entries of p_share from the number p_from on (NULL: of the first share, from its first), gapless. p_near is a time near the first of them, where they are looked for. `is_final`: no entry of that month can come any more. Without an entry there is one row, of these two alone. Raises PT404 not_found (no such account) · PT410 gone (some of its entries are carried).
-- FUNCTION punchcard.find_statement(p_account_id uuid, p_month timestamp with time zone, p_share smallint, p_from bigint, p_near timestamp with time zone, p_limit bigint)
--     RETURNS TABLE(shares json, is_final boolean, share smallint, entry bigint, kind text, available_delta bigint, held_delta bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text, reason text, created_at timestamp with time zone), as its owner

-- Of `find_jobs`, the queued or the running ones, perhaps of one kind. The account has p_there that are unfinished: the walk ends with the last of so many.
-- FUNCTION punchcard.find_unfinished_jobs(p_account_id uuid, p_status text, p_kind text, p_there bigint, p_before uuid, p_limit bigint, OUT ids uuid[], OUT next_before uuid)
--     RETURNS record

-- Of `find_jobs`, the failed or the canceled ones, perhaps of one kind: few of a history, by an index of them alone.
-- FUNCTION punchcard.find_unsuccessful_jobs(p_account_id uuid, p_status text, p_kind text, p_before uuid, p_limit bigint, OUT ids uuid[], OUT next_before uuid)
--     RETURNS record

-- A batch as `request_hash` takes it: the hash of each of its jobs, so that there is but one of them as jsonb at a time. One that is longer than any job that can be bought counts as it is written.
-- FUNCTION punchcard.fingerprints(p_jobs json)
--     RETURNS json

-- The least id that `uuid_v7` makes at a time: ids of jobs that were bought before are less.
-- FUNCTION punchcard.first_id(p_at timestamp with time zone)
--     RETURNS uuid

-- Enters what waits of an account into the balances of these shares, in the order in which its jobs were bought, and numbers it. For whoever holds these shares' rows, by a statement before this: so that nobody else folds meanwhile, and this sees what was folded before. What is entered is what is numbered here, not what waited when it was looked for: nothing counts twice.
-- FUNCTION punchcard.fold_entries(p_account_id uuid, p_shares smallint[])
--     RETURNS void

-- Deletes idempotency keys that are past their retention, and whose jobs are gone: looks at the next part of the table, in the order in which it lies, and answers whether there is more of it. No index of the table says how old a key is: that would cost each purchase more than this costs once a day.
-- FUNCTION punchcard.forget_keys()
--     RETURNS boolean

-- Every grant there is, and the policies of owner and functions' role. Run it again, as the owner, after something was granted by hand or a restore left something out; `punchcard migrate` does where it must.
-- FUNCTION punchcard.grant_access()
--     RETURNS void

-- Grants credits, once for each key; the first grant creates the account. With p_expires_at, what is left of them then lapses (ADR 23).
-- FUNCTION punchcard.grant_credits(p_account_id uuid, p_amount bigint, p_key text, p_reason text DEFAULT NULL::text, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT entry punchcard.movements, OUT replayed boolean)
--     RETURNS record, as its owner

-- Holds credits for so many jobs: of the share that this backend uses, else of all shares dealt anew, else with what is missing drawn from the team's own credits, if there is such a source. Within the account's limits, unless these were taken in elsewhere. Answers the share, its balances, and the number there of the last of these jobs: the caller writes their rows. Raises PT402 insufficient_credits, PT403 account_closed, and as `pass_limits`.
-- FUNCTION punchcard.hold_credits(p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_limited boolean DEFAULT true, OUT share smallint, OUT available bigint, OUT held bigint, OUT entry bigint)
--     RETURNS record

-- The ADR's function, made safe: a key is required, there is a ledger entry, an overdraft is refused, and a job that it names is the account's own. Answers the credits available afterwards.
-- FUNCTION punchcard.increment_user_credits(p_user_id uuid, p_amount bigint, p_key text, p_job_id uuid DEFAULT NULL::uuid, p_reason text DEFAULT NULL::text)
--     RETURNS bigint, as its owner

-- Whether a JSON value is a whole number within bounds, written as one: workers do not read 10.0.
-- FUNCTION punchcard.is_whole(p_value jsonb, p_least numeric, p_most numeric)
--     RETURNS boolean

-- A job as it is now, of p_account_id or, if NULL, of anybody; no row if it is not there. VOLATILE, so that it sees what an earlier part of the same statement has done.
-- FUNCTION punchcard.job_now(p_job_id uuid, p_account_id uuid)
--     RETURNS SETOF punchcard.jobs_now

-- Every job of a span of ids as it is now: both tables that are kept by month are read where the span is. Its text is parsed once, here, and takes the place of each call. Status words are the ADR's, and `canceled`.
-- FUNCTION punchcard.jobs_between(p_first uuid, p_last uuid)
--     RETURNS TABLE(id uuid, account_id uuid, kind text, status text, price bigint, priority smallint, attempt smallint, max_attempts smallint, input json, output json, error json, run_at timestamp with time zone, created_at timestamp with time zone, started_at timestamp with time zone, finished_at timestamp with time zone, expires_at timestamp with time zone, batch_id uuid, captured bigint, crashes smallint, cancel_requested_at timestamp with time zone, progress_percent smallint, progress_message text, progress_at timestamp with time zone, retry_of uuid, metadata jsonb, tags text[], waiting_until timestamp with time zone, webhook jsonb)

-- Takes a step of a task of upkeep, if it is due, and answers whether there is another; once there is none, it is due again in p_every seconds. Of ten that ask at once one takes the step. One that cannot be taken is tried again within ten minutes, and `upkeep` and the server's log say why; one that dies half-way was not taken.
-- FUNCTION punchcard.keep_up(p_task text, p_every integer)
--     RETURNS boolean, as its owner

-- An idempotency key, or what it was used for, as it is kept: 128 bits of its SHA-256. Only the account itself could make two of its own meet, and would be told that it used a key twice. One expression, which PostgreSQL parses here and puts in place of each call: parsed and planned for each purchase it would cost more than all else that a key costs.
-- FUNCTION punchcard.key_digest(p_text text)
--     RETURNS uuid

-- Enters what a caller finds their job by.
-- FUNCTION punchcard.label(p_account_id uuid, p_job_id uuid, p_tags text[], p_metadata jsonb)
--     RETURNS void

-- Up to p_limit jobs that have lapsed, longest first, but for those of the accounts p_busy; locks their rows.
-- FUNCTION punchcard.lapsed(p_limit bigint, p_busy uuid[])
--     RETURNS TABLE(job_id uuid, account_id uuid, lease_token bigint, verdict text, error text), as its owner

-- For `claim`, under its settings: the ids of up to p_limit due jobs of the kinds that it serves, those in p_named first, then by priority, then by age; their rows are locked, and what others have locked is passed over. p_after_* are as there. What others serve, and what is delayed, is never read.
-- FUNCTION punchcard.lock_due(p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_after_kinds text[], p_after_priorities smallint[], p_after_run_ats bigint[], p_after_ids uuid[], p_named uuid[], p_woken boolean, OUT due uuid[])
--     RETURNS uuid[]

-- Locks the rows of these jobs, as far as nobody else holds them. What somebody else holds is waited for, for p_patience milliseconds in all, in equal parts; while that is less than `deadlock_timeout`, no deadlock comes of it. Answers the jobs that are still out of reach.
-- FUNCTION punchcard.lock_for_settling(p_job_ids uuid[], p_lease_tokens bigint[], p_patience integer)
--     RETURNS uuid[]

-- Locks a job's account, and then the job, and answers it; NULL if nothing is left to be done of it. In this order in everything that users may call in transactions of their own: who holds an account and wants one more of its jobs never meets somebody who holds that job and wants the account. A worker has them in the other order, for a moment: it is waited for without the account.
-- FUNCTION punchcard.lock_job(p_job_id uuid, p_account_id uuid)
--     RETURNS punchcard.queue

-- Refuses, as `hold_credits` would, whoever is over their limits or plainly lacks the credits, by a look that locks nothing: before what is dear to take in is read, hashed or written. Whoever passes it may still be refused there.
-- FUNCTION punchcard.look_first(p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_key text)
--     RETURNS void

-- For `make_periods`: a table like another, with what PostgreSQL does not give to a partition: its settings, the triggers that refuse a TRUNCATE, and no grant to anybody, whatever default privileges say. Row security comes from `set_policies`.
-- FUNCTION punchcard.make_period(p_table text, p_name text)
--     RETURNS void

-- Makes the months to come of each table that is kept by month (ADR 19), a table at a time, each a short transaction; answers whether there may be another. At least p_least months are there beyond this one, and where they are fewer, p_ahead are made: first their tables, for which nobody waits, then their places (`attach_periods`). What stops one table (somebody who reads it for long, a table of a name that is needed) stops no other, and is raised once it is all that is left. With nothing to do it costs a look at the catalog.
-- FUNCTION punchcard.make_periods(p_least integer DEFAULT 4, p_ahead integer DEFAULT 6)
--     RETURNS boolean, as its owner

-- Of the tables that are kept by month, those whose jobs all have lesser ids than p_end, with the least id behind them.
-- FUNCTION punchcard.months_before(p_end uuid)
--     RETURNS TABLE(of_table text, name text, end_id uuid)

-- Moves credits at the source, and looks whether they moved: an existing function may clamp, report an error as a row, or do nothing. Then nothing has happened: this raises PT503.
-- FUNCTION punchcard.move_at_source(p_account_id uuid, p_amount bigint)
--     RETURNS void

-- Moves credits from outside (a payment, an operator's correction) once for each key: 'grant' or 'adjust'; or takes what has lapsed: 'expire'. The first positive movement creates the account. Replays answer the first entry; nothing moves twice. An adjustment that names a job gives back for it, once, to the account that bought it: PT404 not_found for a job of another's, or of nobody's. A closed account is adjusted, but granted nothing: PT403 account_closed.
-- FUNCTION punchcard.move_credits(p_kind punchcard.entry_kind, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT entry punchcard.movements, OUT replayed boolean)
--     RETURNS record

-- The least of the ids that are above all that tell a time: from the year 2109 on.
-- FUNCTION punchcard.no_time()
--     RETURNS uuid

-- For `apply_retention`: begins with the oldest month that is past the retention of payloads, and all that is before it, if there is one that is not archived yet. From here on nothing can be put into it: a job of an old system's whose id tells that month would never be archived.
-- FUNCTION punchcard.open_archive()
--     RETURNS boolean

-- What the jobs of a batch ask for beside their kinds' policies, vetted, as parallel arrays: NULL, and p_attempts, if none asks for anything.
-- FUNCTION punchcard.options_of_batch(p_jobs json, p_attempts integer[])
--     RETURNS TABLE(attempts integer[], retries jsonb[], metadata jsonb[], tags jsonb[], webhooks jsonb[], labeled bigint)

-- Lets so many jobs more pass the account's limits, or refuses: PT429 too_many_jobs, too_many_bytes, too_many_enqueues; PT422 over_limit if they never could. Share 0 is locked first, so that no two buyers pass where one may. Enqueues are paced as by the generic cell rate algorithm (ITU-T I.371): a minute's worth at once, then one for each part of a minute that has passed. p_look only looks: it locks nothing, and whoever passes it may still be refused.
-- FUNCTION punchcard.pass_limits(p_account_id uuid, p_jobs integer, p_bytes bigint, p_look boolean DEFAULT false)
--     RETURNS void

-- The jobs of a batch as parallel arrays, in their order: read once and sorted once. With the place of the first that has no kind that is offered, too great a priority, too late a time, or an input that `check_input` has to look at.
-- FUNCTION punchcard.read_batch(p_jobs json)
--     RETURNS TABLE(kinds text[], inputs json[], bytes integer[], priorities integer[], run_ats timestamp with time zone[], prices bigint[], terms integer[], attempts integer[], lives interval[], wakes double precision[], total bigint, total_bytes bigint, unknown_kind bigint, invalid_priority bigint, max_priority smallint, invalid_run_at bigint, invalid_input bigint)

-- Retries failed jobs in bulk, oldest first: those of p_kind, or of p_account_id, or both, and, as wished, of one error code, and finished within a time; up to p_limit after (p_after_at, p_after_id), p_per_second of them a second, the first in p_delay seconds. Answers each with the job that it is retried as, and its price, or the word of why it is not (such as insufficient_credits; account_busy: somebody has held its account for a quarter of a second; refused_by_database: something else, such as a trigger of the team's, which the server's log tells): it keeps no other from being retried. Walks past 10,000 failed jobs at most: if there may be more behind them, a last row with neither says where the next call goes on.
-- FUNCTION punchcard.redrive(p_kind text, p_code text DEFAULT NULL::text, p_account_id uuid DEFAULT NULL::uuid, p_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_until timestamp with time zone DEFAULT NULL::timestamp with time zone, p_limit integer DEFAULT 1000, p_per_second double precision DEFAULT NULL::double precision, p_delay double precision DEFAULT 0, p_after_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_after_id uuid DEFAULT NULL::uuid)
--     RETURNS TABLE(job_id uuid, finished_at timestamp with time zone, retried_as uuid, refused text, price bigint), as its owner

-- Refunds what was captured for a job, once, by the operator's decision. Answers the amount, and the job's account. Raises PT404 not_found · PT410 gone (its entries are carried) · PT409 nothing_captured, already_refunded.
-- FUNCTION punchcard.refund(p_job_id uuid, p_reason text DEFAULT NULL::text, OUT account_id uuid, OUT amount bigint)
--     RETURNS record, as its owner

-- Refuses a batch for the first of its jobs that is not one to be bought, and says which: as `read_batch` found them. For an input only if `check_input` does.
-- FUNCTION punchcard.refuse_batch(p_unknown_kind bigint, p_invalid_priority bigint, p_max_priority smallint, p_invalid_run_at bigint, p_inputs json[])
--     RETURNS void

-- For triggers that keep history as it was: refuses the change, and says why.
-- FUNCTION punchcard.refuse_change()
--     RETURNS trigger

-- Raises PT403 account_closed for an account that is erased, or is to be. With p_wait, whoever closes it is waited for, and waits for the caller's transaction.
-- FUNCTION punchcard.refuse_closed(p_account_id uuid, p_wait boolean DEFAULT true)
--     RETURNS void

-- Raises PT410 gone, if p_job_id is the id of a job that was bought, or could have been, in a month that is past its retention: a UUIDv7 of that time, or one that is known to have been a job's. For whoever has found no such job.
-- FUNCTION punchcard.refuse_gone(p_job_id uuid, p_known boolean DEFAULT false)
--     RETURNS void, as its owner

-- Says why `enqueue` refuses a request: it lacks what it needs, or its job would come before all others, or wait for too long.
-- FUNCTION punchcard.refuse_request(p_account_id uuid, p_kind text, p_input json, p_priority integer)
--     RETURNS void

-- What was deferred goes once it is in the archive.
-- FUNCTION punchcard.refuse_unarchived()
--     RETURNS trigger

-- For triggers of the ledger: an entry goes only once its number is carried.
-- FUNCTION punchcard.refuse_uncarried()
--     RETURNS trigger

-- For triggers of what is kept: lets go of what an account's users and workers wrote while it is being erased, and of nothing else.
-- FUNCTION punchcard.refuse_unless_erased()
--     RETURNS trigger

-- The batch that a key bought, as it is now, if the key was used for the same. Planned once; the months that its ids are of are read alone, and by keys: among its ids are those of others. Raises as `replay_job` does.
-- FUNCTION punchcard.replay_batch(p_bought punchcard.idempotency_keys, p_hash uuid)
--     RETURNS TABLE(id uuid, kind text, status text, price bigint, replayed boolean, wake_after double precision)

-- The job p_job_id that a key bought, as it was bought; if the key, which was used for p_used_for, is used for the same. Raises PT410 gone, if the job is past its retention and the key is not, and PT403 account_closed.
-- FUNCTION punchcard.replay_job(p_account_id uuid, p_job_id uuid, p_used_for uuid, p_hash uuid, OUT job_id uuid, OUT price bigint, OUT max_attempts smallint, OUT run_at timestamp with time zone, OUT created_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT priority smallint)
--     RETURNS record

-- What a key was used for, as a hash; refuses what is no key. What jsonb cannot hold (a lone surrogate, more digits than `numeric` has), or what looks like a number with an exponent within a string, makes an input count as it is written.
-- FUNCTION punchcard.request_hash(p_key text, p_what text, p_input json)
--     RETURNS uuid

-- Takes back up to p_limit jobs that have lapsed. Past its life a job fails, and so does one that nobody called back for in time; a job whose lease expired has crashed, and is queued again at once (the lease was delay enough); one that was to be canceled is. None keeps the others waiting: one that the database refuses stays as it is, and is answered with a NULL as its status; p_busy are accounts that such jobs are not to be asked for of again. Where each has to be tried alone, it ends after some seconds, and leaves the others to the next call. At its end, when it holds these accounts for a moment alone, it enters what was deferred.
-- FUNCTION punchcard.rescue(p_limit bigint, p_busy uuid[] DEFAULT '{}'::uuid[])
--     RETURNS TABLE(job_id uuid, status text, told boolean, account_id uuid), as its owner

-- Takes back jobs that have lapsed one by one, for when one of them cannot be taken back at all: that one stays as it is, is answered with a NULL as its status, and keeps no other. After some seconds it leaves the others to the next call.
-- FUNCTION punchcard.rescue_singly(p_ids uuid[], p_accounts uuid[], p_tokens bigint[], p_verdicts text[], p_errors text[])
--     RETURNS TABLE(job_id uuid, status text, told boolean, account_id uuid)

-- Buys a failed or canceled job once more, at its kind's price of now: a new job with an id and a hold of its own. The old one stays as it is. Refuses as `check_retry_of` and `enqueue` do.
-- FUNCTION punchcard.retry(p_job_id uuid, p_account_id uuid DEFAULT NULL::uuid, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT job_id uuid, OUT account_id uuid, OUT wake_after double precision)
--     RETURNS record, as its owner

-- Returns what is available to the source, for up to 50 accounts that it knows; answers how many were returned. What it does not take now goes on waiting: a tick calls this in a statement of its own, and holds nothing up by it.
-- FUNCTION punchcard.return_credits()
--     RETURNS bigint, as its owner

-- Takes back what is everybody's once it is created: functions by PostgreSQL's default, and by name what default privileges give (Supabase's). `grant_access` then grants what is meant, by name. Every function's path ends in pg_temp, which is searched first where it is not named, for types and relations: a caller's temporary domain `text` would run as the owner.
-- FUNCTION punchcard.revoke_defaults()
--     RETURNS void

-- Gives an account's webhooks a new secret. The last one signs, too, for a day. Raises PT403 account_closed.
-- FUNCTION punchcard.rotate_webhook_secret(p_account_id uuid)
--     RETURNS punchcard.webhooks, as its owner

-- The kinds that a worker serves: the Rust kinds in p_kinds and, if p_http, HTTP targets, whose time limit fits into the p_budget seconds that it has left; if it was woken, p_woken, only those that SQS dispatches; and retired ones, to fail them.
-- FUNCTION punchcard.served_kinds(p_kinds text[], p_http boolean, p_budget integer, p_woken boolean)
--     RETURNS SETOF text

-- Row security binds the owner too (FORCE): it and the functions' role pass by name, everybody else sees no row. Run again where somebody else owns the tables now: after a restore, or REASSIGN OWNED. What fits is left alone, since each change takes its table's lock.
-- FUNCTION punchcard.set_policies()
--     RETURNS void

-- Turns these messages on or off, and lets signed-in users receive those of their own channel.
-- FUNCTION punchcard.set_realtime(p_on boolean)
--     RETURNS void

-- For the trigger on kinds: gives a kind whose terms have changed a new row of them.
-- FUNCTION punchcard.set_terms()
--     RETURNS trigger

-- Sets where an account is told of its jobs, or, with NULL, that it is not; a disabled webhook works again. Raises PT403 account_closed.
-- FUNCTION punchcard.set_webhook(p_account_id uuid, p_url text, p_events text[] DEFAULT NULL::text[])
--     RETURNS punchcard.webhooks, as its owner

-- Settles runs in one statement: the job's status, its entry and the balance move together. Verdicts: complete  succeeded, with its output             retry   queued again after p_delays seconds fail      failed                                 snooze  the same, the attempt not counted reject    failed, and its input is to blame      crash   the same, a crash counted; failed if that was the last cancel    canceled, as was asked for             yield   queued again at once, the attempt not counted overdue   failed: nobody called back in time     return  queued as it was: it never started wait      running without a lease: somebody outside calls back within p_delays seconds A job that is to be canceled is not queued again, but canceled, and one that has no attempt left fails. What succeeds, or fails for good, does. p_outputs are also what a run that goes on later saved for it. p_used are the credits that a metered job used; NULL: all. Each verdict needs its lease: same token, not expired. p_rescue is for those that hold the row's lock: `rescue`, which takes back what has lapsed, `cancel` and `call_back`. A job ends at once even while somebody else holds its account: what it moves is deferred then (ADR 16), and entered by whoever holds the account next; by this call, if that is within a moment. A job's own row that somebody holds is waited for for 200 ms; then all of it is refused (55P03) and can be sent again with p_patience, a time in milliseconds: then what is still held after it is left out, and answered with a NULL as its status. A batch that nobody is in the way of pays nothing for that (ADR 15). Answers the jobs it settled, and whether somebody is to be told of it; whoever is missing had lost its lease, and nothing of it was written. Raises PT422 unknown_verdict.
-- FUNCTION punchcard.settle(p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_delays double precision[], p_outputs text[], p_errors text[], p_used bigint[] DEFAULT NULL::bigint[], p_rescue boolean DEFAULT false, p_patience integer DEFAULT NULL::integer)
--     RETURNS TABLE(job_id uuid, status text, told boolean), as its owner

-- Records what became of messages that were sent, of each attempt once. Verdicts: `delivered`; `retry` in p_delays seconds; `put_back`, the same of one that was not sent; `give_up`; `gone` gives up, too, and whatever else was to go there: its receiver wants no more. What was heard or given up goes from the outbox to the deliveries. None is waited for: this may go out on the one connection by which a worker settles and claims. Answers those that it recorded, or the same statement before it, whose answer was lost, and, `out_of_reach`, those that somebody else holds; whoever is missing had been taken by another worker meanwhile.
-- FUNCTION punchcard.settle_deliveries(p_job_ids uuid[], p_ids uuid[], p_attempts smallint[], p_verdicts text[], p_delays double precision[], p_errors text[], p_urls text[])
--     RETURNS TABLE(id uuid, out_of_reach boolean), as its owner

-- Where a share stood at a time: the number of its first entry from then on, and the balances before that; without one, the number that it will have, and the balances of now. Numbers are given out in the order of time, but for what waited for its account: the least of the first 20,000 of each sort, and of all that are archived, counts. Once there is one, no lesser number can come.
-- FUNCTION punchcard.share_at(p_account_id uuid, p_share smallint, p_at timestamp with time zone, OUT entry bigint, OUT available bigint, OUT held bigint)
--     RETURNS record

-- The jobs of an account that have these ids, which come newest first, as they are now: the first of them, and those after it as long as they have no more than p_bytes in all, of what is read of them: inputs and outputs are, unless somebody does without. Planned once; the months that these ids are of are read alone.
-- FUNCTION punchcard.show_jobs(p_account_id uuid, p_ids uuid[], p_bytes bigint, p_input boolean DEFAULT true, p_output boolean DEFAULT true)
--     RETURNS SETOF punchcard.jobs_now

-- An account's balance at the source, its row locked if p_lock; NULL if it has none. One that is no number fails.
-- FUNCTION punchcard.source_balance(p_account_id uuid, p_lock boolean)
--     RETURNS numeric

-- The caller is told no SQL: the operator finds in the log what the team's table or function said.
-- FUNCTION punchcard.source_failed(p_account_id uuid, p_state text, p_message text)
--     RETURNS void

-- For the doctor: whether the source can be read, and what waits; no row without a source.
-- FUNCTION punchcard.source_health()
--     RETURNS TABLE(ok boolean, finding text), as its owner

-- Whether the source knows an account, and can say what it has. One that it cannot say keeps no other from being asked for.
-- FUNCTION punchcard.source_knows(p_account_id uuid)
--     RETURNS boolean

-- Spreads an account over p_shares shares (1 brings it back together), so that as many buyers go at once.
-- FUNCTION punchcard.spread_account(p_account_id uuid, p_shares integer)
--     RETURNS void

-- Tries the source that was just taken on one account, and rolls that back: by what it does, not by what it answers. Refuses what does not do as it must; answers what is worth a warning.
-- FUNCTION punchcard.try_credit_source(p_source punchcard.credit_source)
--     RETURNS SETOF text

-- Takes the team's credits as the source of all: p_function moves them, or else we update p_table. It is tried on one account and rolled back, by what it does, not by what it answers; what does not do as it must is refused. So is a change while credits are in Punchcard's own accounts, unless p_force: they would move there too. Answers what is worth a warning.
-- FUNCTION punchcard.use_credit_source(p_table text, p_account_column text, p_balance_column text, p_function text DEFAULT NULL::text, p_constants jsonb DEFAULT '{}'::jsonb, p_search_path text DEFAULT 'public'::text, p_force boolean DEFAULT false)
--     RETURNS SETOF text, as its owner

-- When a UUIDv7 of `uuid_v7` was made, to the microsecond. Of any other UUID, a time by which it sorts: the first microsecond of its millisecond, or the last, as its version digit is below seven or above.
-- FUNCTION punchcard.uuid_time(p_id uuid)
--     RETURNS timestamp with time zone

-- A UUIDv7 (RFC 9562 §5.7) of a time, to its microsecond, which the 12 bits after the milliseconds have (§6.2, method 3), as PostgreSQL's own has from version 18 on. Without a time: the database's clock. One expression, which PostgreSQL puts in place of the call: the version's digit goes between the time's first twelve digits and its last three.
-- FUNCTION punchcard.uuid_v7(p_at timestamp with time zone DEFAULT clock_timestamp())
--     RETURNS uuid

-- Checks all that `enqueue_batch` checks, by doing it, and undoes it again: answers the price of all jobs, and what the account would have left. Refuses as `enqueue_batch` does.
-- FUNCTION punchcard.validate_batch(p_account_id uuid, p_jobs json, OUT price bigint, OUT available_after bigint)
--     RETURNS record, as its owner

-- For `make_periods`: the tables that one kept by month needs, from where its spare one begins (NULL: it has none yet) to behind p_last_month, in their order. No first id: from the least; no end: to the last. What is not new is the spare table, by another name. As a rule it only moves on behind the months; but where months have begun that nobody made, what was bought in them is in it: then it becomes the month of it, or of them, and there is a new one.
-- FUNCTION punchcard.wanted_periods(p_table text, p_spare_from uuid, p_this_month timestamp without time zone, p_last_month timestamp without time zone)
--     RETURNS TABLE(name text, first_id uuid, end_id uuid, is_new boolean)
GRANT EXECUTE ON FUNCTION punchcard_api.find_jobs TO authenticated;
GRANT EXECUTE ON FUNCTION punchcard_api.open_account TO authenticated;
GRANT USAGE ON SCHEMA punchcard_api TO authenticated;
GRANT SELECT (id, available, held) ON TABLE punchcard.accounts TO authenticated;
GRANT SELECT (account_id, price, captured, entry) ON TABLE punchcard.deferred_entries TO authenticated;
GRANT SELECT (id, account_id, kind, price, priority, max_attempts, input, scheduled_at, created_at, expires_at, retry_of, metadata, tags) ON TABLE punchcard.jobs TO authenticated;
GRANT SELECT (job_id, account_id, status, captured, attempt, output, error, started_at, run_started_at, finished_at) ON TABLE punchcard.outcomes TO authenticated;
GRANT SELECT (job_id, account_id, lease_expires_at, waiting_until, attempt, error, run_at, started_at, cancel_requested_at, progress_percent, progress_message) ON TABLE punchcard.queue TO authenticated;
GRANT SELECT ON TABLE punchcard_api.credits TO authenticated;
GRANT SELECT ON TABLE punchcard_api.jobs TO authenticated;
GRANT EXECUTE ON FUNCTION punchcard.access TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.audit_accounts TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.audit_rows TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.balance TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.call_back TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.cancel TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.check_in TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.claim TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.claim_deliveries TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.claim_singly TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.dated_left TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.enqueue TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.enqueue_batch TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.erase_account TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.erase_payloads TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.find_entries TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.find_failed TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.find_jobs TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.find_redrivable TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.find_statement TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.first_id TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.grant_credits TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.job_now TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.jobs_between TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.keep_up TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.key_digest TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.no_time TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.redrive TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.refuse_gone TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.rescue TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.retry TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.return_credits TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.rotate_webhook_secret TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.set_webhook TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.settle TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.settle_deliveries TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.show_jobs TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.source_health TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.uuid_time TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.validate_batch TO punchcard_app;
GRANT USAGE ON SCHEMA punchcard TO punchcard_app;
GRANT SELECT ON TABLE punchcard.accounts TO punchcard_app;
GRANT SELECT ON TABLE punchcard.archive TO punchcard_app;
GRANT SELECT ON TABLE punchcard.archived_entries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.archived_months TO punchcard_app;
GRANT SELECT ON TABLE punchcard.attempts TO punchcard_app;
GRANT SELECT ON TABLE punchcard.audit_findings TO punchcard_app;
GRANT SELECT ON TABLE punchcard.audit_i0 TO punchcard_app;
GRANT SELECT ON TABLE punchcard.audit_rounds TO punchcard_app;
GRANT SELECT ON TABLE punchcard.balances TO punchcard_app;
GRANT SELECT ON TABLE punchcard.carried TO punchcard_app;
GRANT SELECT ON TABLE punchcard.credit_source TO punchcard_app;
GRANT SELECT ON TABLE punchcard.dated_accounts TO punchcard_app;
GRANT SELECT ON TABLE punchcard.dated_grants TO punchcard_app;
GRANT SELECT ON TABLE punchcard.deferred_entries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.deliveries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.ends TO punchcard_app;
GRANT SELECT ON TABLE punchcard.entries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.erasures TO punchcard_app;
GRANT SELECT ON TABLE punchcard.functions TO punchcard_app;
GRANT SELECT ON TABLE punchcard.hidden TO punchcard_app;
GRANT SELECT ON TABLE punchcard.idempotency_keys TO punchcard_app;
GRANT SELECT ON TABLE punchcard.jobs TO punchcard_app;
GRANT SELECT ON TABLE punchcard.jobs_now TO punchcard_app;
GRANT SELECT ON TABLE punchcard.kept_jobs TO punchcard_app;
GRANT SELECT ON TABLE punchcard.kept_outcomes TO punchcard_app;
GRANT SELECT ON TABLE punchcard.kind_terms TO punchcard_app;
GRANT SELECT ON TABLE punchcard.kinds TO punchcard_app;
GRANT SELECT ON TABLE punchcard.labels TO punchcard_app;
GRANT SELECT ON TABLE punchcard.ledger TO punchcard_app;
GRANT SELECT ON TABLE punchcard.limits TO punchcard_app;
GRANT SELECT ON TABLE punchcard.messages TO punchcard_app;
GRANT SELECT ON TABLE punchcard.migrations TO punchcard_app;
GRANT SELECT ON TABLE punchcard.movements TO punchcard_app;
GRANT SELECT ON TABLE punchcard.outbox TO punchcard_app;
GRANT SELECT ON TABLE punchcard.outcomes TO punchcard_app;
GRANT SELECT ON TABLE punchcard.periods TO punchcard_app;
GRANT SELECT ON TABLE punchcard.queue TO punchcard_app;
GRANT SELECT ON TABLE punchcard.retention TO punchcard_app;
GRANT SELECT ON TABLE punchcard.retries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.runs TO punchcard_app;
GRANT SELECT ON TABLE punchcard.service_tokens TO punchcard_app;
GRANT SELECT ON TABLE punchcard.upkeep TO punchcard_app;
GRANT SELECT ON TABLE punchcard.waiting_entries TO punchcard_app;
GRANT SELECT ON TABLE punchcard.webhooks TO punchcard_app;
GRANT EXECUTE ON FUNCTION punchcard.cancel TO service_role;
GRANT EXECUTE ON FUNCTION punchcard.enqueue TO service_role;
GRANT EXECUTE ON FUNCTION punchcard.enqueue_batch TO service_role;
GRANT EXECUTE ON FUNCTION punchcard.grant_credits TO service_role;
GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits TO service_role;
GRANT EXECUTE ON FUNCTION punchcard.retry TO service_role;
GRANT USAGE ON SCHEMA punchcard TO service_role;
