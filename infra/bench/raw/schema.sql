-- The tables of the raw statements: the rows that ours write (job with its status and output, an entry for each
-- movement, balances), with no more indexes than reading them needs, and no rule.
CREATE SCHEMA raw;
CREATE TABLE raw.accounts (
    id uuid PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0),
    held bigint NOT NULL CHECK (held >= 0)
) WITH (fillfactor = 50);
CREATE TABLE raw.ledger (
    account_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    amount bigint NOT NULL,
    available_after bigint NOT NULL,
    held_after bigint NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id)
);
CREATE TABLE raw.jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id uuid NOT NULL,
    kind text NOT NULL,
    price bigint NOT NULL,
    status text NOT NULL DEFAULT 'queued',
    priority smallint NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT now(),
    claimed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    input json NOT NULL,
    output json
) WITH (fillfactor = 40);                              -- most completions are HOT updates
CREATE INDEX jobs_due ON raw.jobs (priority, run_at, id) WHERE claimed_at IS NULL;
CREATE INDEX jobs_account ON raw.jobs (account_id, id);

-- The charge and the insert as a function, whose plans a backend keeps: the fastest way to write these rows.
CREATE FUNCTION raw.enqueue(p_account_id uuid, p_kind text, p_input json) RETURNS uuid
    LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid;
BEGIN
    WITH charged AS (
        UPDATE raw.accounts a SET available = available - 1, held = held + 1
        WHERE a.id = p_account_id AND available >= 1 RETURNING available, held
    ), job AS (
        INSERT INTO raw.jobs (account_id, kind, price, input) SELECT p_account_id, p_kind, 1, p_input FROM charged
        RETURNING id
    )
    INSERT INTO raw.ledger (account_id, kind, amount, available_after, held_after, job_id)
    SELECT p_account_id, 'hold', 1, c.available, c.held, j.id FROM charged c, job j
    RETURNING job_id INTO new_id;
    RETURN new_id;
END $$;

-- Finishes what was claimed and claims as many again, in one round trip.
CREATE FUNCTION raw.finish_and_claim(p_ids uuid[], p_limit integer, OUT ids uuid[], OUT inputs text)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH done AS (
        UPDATE raw.jobs j SET status = 'succeeded', finished_at = now(), output = to_json(repeat('x', 198))
        WHERE j.id = ANY (p_ids) AND j.status = 'running' RETURNING j.id, j.account_id, j.price
    ), moved AS (
        UPDATE raw.accounts a SET held = a.held - m.price
        FROM (SELECT account_id, sum(price)::bigint AS price FROM done GROUP BY account_id) m
        WHERE a.id = m.account_id RETURNING a.id, a.available, a.held
    ), entered AS (
        INSERT INTO raw.ledger (account_id, kind, amount, available_after, held_after, job_id)
        SELECT d.account_id, 'capture', d.price, m.available, m.held, d.id
        FROM done d JOIN moved m ON m.id = d.account_id
    ), next AS (
        UPDATE raw.jobs j SET status = 'running', claimed_at = now(), attempt = attempt + 1
        WHERE j.id = ANY (ARRAY(
            SELECT d.id FROM raw.jobs d WHERE d.claimed_at IS NULL AND d.priority = 0 AND d.run_at <= now()
            ORDER BY d.run_at, d.id LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING j.id, j.input
    )
    SELECT array_agg(n.id), string_agg(n.input::text, ',') INTO ids, inputs FROM next n;
END $$;
