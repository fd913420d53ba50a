-- Credits: who pays, how much is left, and every movement. Whole numbers only.

CREATE SCHEMA IF NOT EXISTS punchcard;
REVOKE ALL ON SCHEMA punchcard FROM PUBLIC;
-- Functions are nobody's until a migration grants them by name.
ALTER DEFAULT PRIVILEGES IN SCHEMA punchcard REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- A timestamp as the API writes it: RFC 3339, UTC, microseconds.
CREATE FUNCTION punchcard.rfc3339(t timestamptz) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- One row for each payer. Every movement locks this one row, so that no two can spend the same credit.
CREATE TABLE punchcard.accounts (
    id          uuid PRIMARY KEY,                      -- a user's id by default; any payer in general
    available   bigint NOT NULL DEFAULT 0 CHECK (available >= 0),  -- free to spend
    held        bigint NOT NULL DEFAULT 0 CHECK (held >= 0),       -- set aside for unfinished jobs
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);                              -- room for HOT updates: balances change all the time

-- Append-only. `available_after` and `held_after` are the account's balances once the entry is in.
CREATE TABLE punchcard.ledger (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id       uuid NOT NULL REFERENCES punchcard.accounts,
    kind             text NOT NULL,
    available_delta  bigint NOT NULL,
    held_delta       bigint NOT NULL,
    available_after  bigint NOT NULL CHECK (available_after >= 0),
    held_after       bigint NOT NULL CHECK (held_after >= 0),
    job_id           uuid,
    idempotency_key  text CHECK (idempotency_key ~ '^[\x20-\x7e]{1,128}$'),
    reason           text CHECK (length(reason) <= 500),
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_deltas_fit_kind CHECK (
        CASE kind
            WHEN 'grant'   THEN available_delta > 0 AND held_delta = 0
            WHEN 'hold'    THEN available_delta < 0 AND held_delta = -available_delta
            WHEN 'capture' THEN available_delta = 0 AND held_delta < 0
            WHEN 'release' THEN available_delta > 0 AND held_delta = -available_delta
            WHEN 'adjust'  THEN available_delta <> 0 AND held_delta = 0
            ELSE false                                 -- no other kind exists ('expire' is reserved: ADR 0006)
        END),
    CONSTRAINT ledger_job_fits_kind CHECK (
        CASE WHEN kind IN ('hold', 'capture', 'release') THEN job_id IS NOT NULL
             WHEN kind = 'grant' THEN job_id IS NULL
             ELSE true END),
    CONSTRAINT ledger_key_fits_kind CHECK ((idempotency_key IS NOT NULL) = (kind IN ('grant', 'adjust')))
);

-- At most one entry of each kind for a job: a second refund is impossible, not just unlikely.
CREATE UNIQUE INDEX ledger_one_of_a_kind_per_job ON punchcard.ledger (job_id, kind) WHERE job_id IS NOT NULL;
CREATE UNIQUE INDEX ledger_idempotency_key ON punchcard.ledger (account_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX ledger_account ON punchcard.ledger (account_id, id);

CREATE FUNCTION punchcard.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION '% on punchcard.% is refused: %', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON punchcard.ledger
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON punchcard.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change('the ledger is append-only');
CREATE TRIGGER accounts_are_kept BEFORE DELETE ON punchcard.accounts
    FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('accounts carry the ledger');

-- Moves credits from outside (a payment, an operator's correction) once for each key: 'grant' or 'adjust'.
-- The first positive movement creates the account. Replays answer the first entry; nothing moves twice.
CREATE FUNCTION punchcard.move_credits(
    p_kind text, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text,
    OUT entry punchcard.ledger, OUT replayed boolean)
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    balance punchcard.accounts;
BEGIN
    IF p_account_id IS NULL OR p_amount IS NULL OR p_amount = 0 OR abs(p_amount::numeric) > 1e15
        OR (p_kind = 'grant' AND p_amount < 0)
    THEN
        RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
            DETAIL = 'An account and a whole amount between 1 and 1000000000000000 are required.';
    END IF;
    IF p_key IS NULL OR p_key !~ '^[\x20-\x7e]{1,128}$' THEN
        RAISE EXCEPTION 'idempotency_key_required' USING ERRCODE = 'PT422',
            DETAIL = 'A key of 1 to 128 printable ASCII characters names this movement.';
    END IF;
    IF length(p_reason) > 500 THEN
        RAISE EXCEPTION 'reason_too_long' USING ERRCODE = 'PT422', DETAIL = 'A reason has at most 500 characters.';
    END IF;

    IF p_amount > 0 THEN
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    END IF;
    -- The row lock comes first: whoever holds it sees every earlier movement of the account.
    SELECT * INTO balance FROM punchcard.accounts WHERE id = p_account_id FOR NO KEY UPDATE;

    SELECT * INTO entry FROM punchcard.ledger WHERE account_id = p_account_id AND idempotency_key = p_key;
    IF FOUND THEN
        IF (entry.kind, entry.available_delta) IS DISTINCT FROM (p_kind, p_amount)
            OR entry.job_id IS DISTINCT FROM p_job_id
        THEN
            RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
                DETAIL = 'This key was used for another movement.';
        END IF;
        replayed := true;
        RETURN;
    END IF;

    IF balance.id IS NULL OR balance.available + p_amount < 0 THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', -p_amount, 'available', coalesce(balance.available, 0))::text;
    END IF;
    IF p_job_id IS NOT NULL
        AND EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = p_job_id AND l.kind = p_kind)
    THEN
        RAISE EXCEPTION 'already_adjusted' USING ERRCODE = 'PT409',
            DETAIL = 'This job has its one adjustment already.';
    END IF;

    UPDATE punchcard.accounts a SET available = a.available + p_amount
    WHERE a.id = p_account_id RETURNING * INTO balance;
    INSERT INTO punchcard.ledger (account_id, kind, available_delta, held_delta, available_after, held_after,
                                  job_id, idempotency_key, reason)
    VALUES (p_account_id, p_kind, p_amount, 0, balance.available, balance.held, p_job_id, p_key, p_reason)
    RETURNING * INTO entry;
    replayed := false;
END $$;

-- Grants credits, once for each key; the first grant creates the account.
CREATE FUNCTION punchcard.grant_credits(
    p_account_id uuid, p_amount bigint, p_key text, p_reason text DEFAULT NULL,
    OUT entry punchcard.ledger, OUT replayed boolean)
    LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
    SELECT * FROM punchcard.move_credits('grant', p_account_id, p_amount, p_key, NULL, p_reason)
$$;

-- The ADR's function, made safe: a key is required, there is a ledger entry, and an overdraft is refused.
-- Answers the credits available afterwards.
CREATE FUNCTION punchcard.increment_user_credits(
    p_user_id uuid, p_amount bigint, p_key text, p_job_id uuid DEFAULT NULL, p_reason text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
    SELECT (m.entry).available_after
    FROM punchcard.move_credits('adjust', p_user_id, p_amount, p_key, p_job_id, p_reason) m
$$;
