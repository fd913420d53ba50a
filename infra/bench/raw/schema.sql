-- The tables of the raw statements: the rows that ours write (what was bought and what came of it, each with
-- its number and the balances after it, what is to be done, balances), with no more indexes than reading them
-- needs, and no rule.
CREATE SCHEMA raw;
CREATE TABLE raw.accounts (
    id uuid PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0),
    held bigint NOT NULL CHECK (held >= 0),
    entries bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE raw.jobs (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    price bigint NOT NULL,
    entry bigint NOT NULL,
    available_after bigint NOT NULL,
    held_after bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    input json NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE TABLE raw.idempotency_keys (
    account_id uuid NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (account_id, key)
);
CREATE TABLE raw.queue (
    job_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    price bigint NOT NULL,
    run_at timestamptz NOT NULL DEFAULT now(),
    claimed_at timestamptz,
    priority smallint NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 0
);
CREATE INDEX queue_due ON raw.queue (priority, run_at, job_id) WHERE claimed_at IS NULL;
CREATE TABLE raw.outcomes (
    job_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    captured bigint NOT NULL,
    entry bigint NOT NULL,
    available_after bigint NOT NULL,
    held_after bigint NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    status text NOT NULL,
    output json
);
CREATE INDEX outcomes_account ON raw.outcomes (account_id, finished_at);

-- The charge and the inserts as a function, whose plans a backend keeps: the fastest way to write these rows.
CREATE FUNCTION raw.enqueue(p_account_id uuid, p_kind text, p_input json, p_key text) RETURNS uuid
    LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid;
BEGIN
    IF EXISTS (SELECT FROM raw.idempotency_keys k WHERE k.account_id = p_account_id AND k.key = p_key) THEN
        RETURN NULL;
    END IF;
    WITH charged AS (
        UPDATE raw.accounts a SET available = available - 1, held = held + 1, entries = entries + 1
        WHERE a.id = p_account_id AND available >= 1 RETURNING available, held, entries
    ), job AS (
        INSERT INTO raw.jobs (account_id, id, price, entry, available_after, held_after, kind, input)
        SELECT p_account_id, gen_random_uuid(), 1, c.entries, c.available, c.held, p_kind, p_input
        FROM charged c
        RETURNING id
    )
    INSERT INTO raw.queue (job_id, account_id, price) SELECT j.id, p_account_id, 1 FROM job j
    RETURNING job_id INTO new_id;
    RETURN new_id;
END $$;

-- Finishes what was claimed and claims as many again, in one round trip.
CREATE FUNCTION raw.finish_and_claim(p_ids uuid[], p_limit integer, OUT ids uuid[], OUT inputs text)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH done AS (
        DELETE FROM raw.queue q WHERE q.job_id = ANY (p_ids) AND q.claimed_at IS NOT NULL
        RETURNING q.job_id, q.account_id, q.price, q.claimed_at
    ), moved AS (
        UPDATE raw.accounts a SET held = a.held - m.price, entries = a.entries + m.jobs
        FROM (SELECT account_id, sum(price)::bigint AS price, count(*) AS jobs FROM done
              GROUP BY account_id) m
        WHERE a.id = m.account_id RETURNING a.id, a.available, a.held, a.entries
    ), ended AS (
        INSERT INTO raw.outcomes (job_id, account_id, captured, entry, available_after, held_after,
                                  started_at, finished_at, status, output)
        SELECT d.job_id, d.account_id, d.price, m.entries, m.available, m.held, d.claimed_at, now(),
               'succeeded', to_json(repeat('x', 198))
        FROM done d JOIN moved m ON m.id = d.account_id
    ), next AS (
        UPDATE raw.queue q SET claimed_at = now(), attempt = attempt + 1
        WHERE q.job_id = ANY (ARRAY(
            SELECT d.job_id FROM raw.queue d
            WHERE d.claimed_at IS NULL AND d.priority = 0 AND d.run_at <= now()
            ORDER BY d.run_at, d.job_id LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING q.job_id, q.account_id
    )
    SELECT array_agg(n.job_id), string_agg(j.input::text, ',') INTO ids, inputs
    FROM next n JOIN raw.jobs j ON j.account_id = n.account_id AND j.id = n.job_id;
END $$;
