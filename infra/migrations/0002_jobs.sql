-- Kinds and jobs: what can be bought, what was, what is to be done, and what came of it (ADR 0007).

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

-- Every job as it is now. Status words are the ADR's, and `canceled`.
CREATE VIEW punchcard.jobs_now WITH (security_invoker = on) AS
    SELECT j.id, j.account_id, j.kind,
           coalesce(o.status, CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued' ELSE 'running' END)
               AS status,
           j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input, o.output,
           coalesce(o.error, q.error) AS error,
           -- Of a row that was changed by hand: a time that the calendar has.
           least(greatest(coalesce(q.run_at, j.scheduled_at), timestamptz 'epoch'), timestamptz '9999-12-31') AS run_at,
           j.created_at,
           coalesce(o.started_at, q.started_at) AS started_at, o.finished_at, j.expires_at, j.batch_id,
           o.captured, coalesce(o.crashes, q.crashes) AS crashes, q.cancel_requested_at,
           q.progress_percent, q.progress_message, q.progress_at, j.retry_of, j.metadata, j.tags,
           q.waiting_until, j.webhook
    FROM punchcard.jobs j
    LEFT JOIN punchcard.queue q ON q.job_id = j.id
    LEFT JOIN punchcard.outcomes o ON o.job_id = j.id;

-- The ids of an account's jobs, newest first, before p_before: up to p_limit of those of one status and kind, if these are given,
-- that have all of p_labels. Walks past 10,000 others at most, whatever the history. `next_before` is where the next page begins,
-- also if nothing was found so far; NULL when there is no more.
CREATE FUNCTION punchcard.find_jobs(
    p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    -- Planned for what is asked: what is not, is not read. By scalar sub-selects, each by its key, job by job.
    SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
    SET jit = off AS $$
DECLARE
    before uuid := coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    unfinished boolean := p_status IN ('queued', 'running');
    walked text;
    there bigint;
    found_here bigint;
BEGIN
    IF unfinished THEN
        -- The account counts them: the walk ends with the last of so many.
        SELECT coalesce(sum(a.unfinished_jobs), 0) INTO there FROM punchcard.accounts a WHERE a.id = p_account_id;
        IF there = 0 THEN
            ids := '{}';
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_labels) > 0 THEN
        -- By the label that the fewest jobs have, as far as is looked.
        SELECT l.label INTO walked
        FROM unnest(p_labels) WITH ORDINALITY AS l (label, n), LATERAL (
            SELECT count(*) AS jobs FROM (
                SELECT FROM punchcard.labels w WHERE w.account_id = p_account_id AND w.label = l.label AND w.job_id < before
                LIMIT 10000) w) c
        ORDER BY c.jobs, l.n LIMIT 1;
        ids := ARRAY(
            SELECT w.job_id FROM (
                SELECT l.job_id FROM punchcard.labels l
                WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < before
                ORDER BY l.job_id DESC LIMIT 10000) w
            WHERE NOT EXISTS (
                SELECT FROM unnest(array_remove(p_labels, walked)) o (label) WHERE (
                    SELECT l.job_id FROM punchcard.labels l
                    WHERE l.account_id = p_account_id AND l.label = o.label AND l.job_id = w.job_id) IS NULL)
              AND (p_kind IS NULL
                   OR (SELECT j.kind FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id = w.job_id) = p_kind)
              AND (p_status IS NULL OR p_status = CASE WHEN unfinished THEN (
                       SELECT CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued' ELSE 'running' END
                       FROM punchcard.queue q WHERE q.job_id = w.job_id)
                   ELSE (SELECT o.status FROM punchcard.outcomes o WHERE o.job_id = w.job_id) END)
            ORDER BY w.job_id DESC LIMIT p_limit);
    ELSIF unfinished THEN
        ids := ARRAY(
            SELECT w.id FROM (
                SELECT j.id, j.kind, q.status
                FROM (SELECT j.id, j.kind FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < before
                      ORDER BY j.id DESC LIMIT 10000) j,
                     LATERAL (SELECT CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued' ELSE 'running'
                                     END AS status
                              FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
                ORDER BY j.id DESC LIMIT there) w
            WHERE w.status = p_status AND (p_kind IS NULL OR w.kind = p_kind)
            ORDER BY w.id DESC LIMIT p_limit);
        IF cardinality(ids) < p_limit THEN
            -- If all of them are among the newest 10,000 jobs, there is none further on.
            SELECT count(*) INTO found_here FROM (
                SELECT FROM (SELECT j.id FROM punchcard.jobs j WHERE j.account_id = p_account_id
                             ORDER BY j.id DESC LIMIT 10000) j,
                            LATERAL (SELECT FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
                LIMIT there) f;
            IF found_here = there THEN
                RETURN;
            END IF;
        END IF;
    ELSE
        ids := ARRAY(
            SELECT w.id
            FROM (SELECT j.id, j.kind FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < before
                  ORDER BY j.id DESC LIMIT 10000) w
            WHERE (p_kind IS NULL OR w.kind = p_kind)
              AND (p_status IS NULL OR (SELECT o.status FROM punchcard.outcomes o WHERE o.job_id = w.id) = p_status)
            ORDER BY w.id DESC LIMIT p_limit);
    END IF;

    IF cardinality(ids) = p_limit THEN
        next_before := ids[p_limit];
    ELSIF walked IS NOT NULL THEN
        SELECT l.job_id INTO next_before FROM punchcard.labels l
        WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < before
        ORDER BY l.job_id DESC OFFSET 9999 LIMIT 1;
    ELSE
        SELECT j.id INTO next_before FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < before
        ORDER BY j.id DESC OFFSET 9999 LIMIT 1;
    END IF;
END $$;

-- Every run of a job that has ended, and how.
CREATE VIEW punchcard.runs WITH (security_invoker = on) AS
    SELECT a.job_id, a.number, a.attempt, a.ended, a.started_at, a.ended_at, a.error FROM punchcard.attempts a
    UNION ALL
    SELECT o.job_id, o.lease_token, o.attempt, o.status, o.run_started_at, o.finished_at,
           CASE WHEN o.status = 'failed' THEN o.error END
    FROM punchcard.outcomes o WHERE o.run_started_at IS NOT NULL;

-- A UUIDv7 (RFC 9562 §5.7) from the database's clock; PostgreSQL has its own from version 18 on.
CREATE FUNCTION punchcard.uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
        PLACING substring(pg_catalog.int8send((extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

SELECT punchcard.revoke_defaults();
