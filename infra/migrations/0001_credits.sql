-- Credits: who pays, how much is left, and every movement. Whole numbers only.

CREATE SCHEMA IF NOT EXISTS punchcard;
REVOKE ALL ON SCHEMA punchcard FROM PUBLIC;

-- Takes back what is everybody's once it is created: functions by PostgreSQL's default, and by name what default
-- privileges give (Supabase's). Each migration ends with it; 0009_access then grants what is meant, by name.
-- Every function's path ends in pg_temp, which is searched first where it is not named, for types and relations: a
-- caller's temporary domain `text` would run as the owner.
CREATE FUNCTION punchcard.revoke_defaults() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own name;
    who text;
    what text;
BEGIN
    FOR own, who IN
        SELECT n.nspname, r.name FROM pg_catalog.pg_namespace n, (
            SELECT 'PUBLIC' AS name UNION ALL
            SELECT quote_ident(r.rolname) FROM pg_catalog.pg_roles r
            WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'punchcard_app')) r
        WHERE n.nspname IN ('punchcard', 'punchcard_api')
    LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %s', own, who);
        FOREACH what IN ARRAY ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS'] LOOP
            EXECUTE format('REVOKE ALL ON ALL %s IN SCHEMA %I FROM %s', what, own, who);
        END LOOP;
    END LOOP;
END $$;

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

-- What an account has, over all its shares.
CREATE VIEW punchcard.balances WITH (security_invoker = on) AS
    SELECT id AS account_id, sum(available)::bigint AS available, sum(held)::bigint AS held
    FROM punchcard.accounts GROUP BY id;

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

-- The ledger with what each entry did to the two balances.
CREATE VIEW punchcard.entries WITH (security_invoker = on) AS
    SELECT l.*,
           CASE WHEN kind = 'hold' THEN -amount WHEN kind IN ('capture', 'expire') THEN 0 ELSE amount END
               AS available_delta,
           CASE WHEN kind = 'hold' THEN amount WHEN kind IN ('capture', 'release') THEN -amount ELSE 0 END
               AS held_delta
    FROM punchcard.ledger l;

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

-- Deals what an account has available evenly over the first p_spread of its shares; p_least of it, at least, to share p_share.
-- Answers what there is in all; moves nothing if that is less. With p_free, what it has on shares that nobody else holds, if
-- that is enough: else all shares are locked, in their order.
CREATE FUNCTION punchcard.deal_credits(
    p_account_id uuid, p_spread integer, p_share integer, p_least bigint, p_free boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint;
    dealt_to smallint[];  -- shares, in their order
    users integer;        -- how many of them are dealt to
BEGIN
    -- A transaction that bought before holds a share already: if it waited for another, it might for one whose holder waits
    -- for it. What it locks and finds too little on, it lets go of (by rolling back) before it waits.
    IF p_free THEN
        BEGIN
            dealt_to := ARRAY(SELECT a.share FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share
                              FOR NO KEY UPDATE SKIP LOCKED);
            SELECT sum(a.available) INTO STRICT total FROM punchcard.accounts a
            WHERE a.id = p_account_id AND a.share = ANY (dealt_to)
            HAVING sum(a.available) >= p_least AND p_share = ANY (dealt_to);
        EXCEPTION WHEN no_data_found THEN
            dealt_to := NULL;
        END;
    END IF;
    IF dealt_to IS NULL THEN
        PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE;
        SELECT sum(a.available), array_agg(a.share ORDER BY a.share) INTO total, dealt_to
        FROM punchcard.accounts a WHERE a.id = p_account_id;
        IF total IS NULL OR total < p_least THEN
            RETURN coalesce(total, 0);
        END IF;
    END IF;
    SELECT count(*) INTO users FROM unnest(dealt_to) s (share) WHERE s.share < p_spread;
    WITH dealt AS (
        UPDATE punchcard.accounts a
        SET available = CASE WHEN a.share >= p_spread OR users = 0 THEN 0 ELSE (total - p_least) / users END
                      + CASE WHEN a.share <> p_share THEN 0
                             WHEN users = 0 THEN total ELSE p_least + (total - p_least) % users END
        FROM punchcard.accounts before
        WHERE a.id = p_account_id AND a.share = ANY (dealt_to) AND before.id = a.id AND before.share = a.share
        RETURNING a.share, a.available, a.held, a.available - before.available AS shifted
    )
    INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after)
    SELECT p_account_id, 'shift', d.shifted, d.share, d.available, d.held FROM dealt d WHERE d.shifted <> 0;
    RETURN total;
END $$;

-- Spreads an account over p_shares shares (1 brings it back together), so that as many buyers go at once.
CREATE FUNCTION punchcard.spread_account(p_account_id uuid, p_shares integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_shares IS NULL OR p_shares NOT BETWEEN 1 AND 64 THEN
        RAISE EXCEPTION 'invalid_shares' USING ERRCODE = 'PT422', DETAIL = 'An account has 1 to 64 shares.';
    END IF;
    UPDATE punchcard.accounts a SET spread = p_shares WHERE a.id = p_account_id AND a.share = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown_account' USING ERRCODE = 'PT422', DETAIL = 'No such account.';
    END IF;
    INSERT INTO punchcard.accounts (id, share)
    SELECT p_account_id, s FROM generate_series(1, p_shares - 1) s
    ON CONFLICT DO NOTHING;
    PERFORM punchcard.deal_credits(p_account_id, p_shares, 0, 0);
END $$;

-- Moves credits from outside (a payment, an operator's correction) once for each key: 'grant' or 'adjust'.
-- The first positive movement creates the account. Replays answer the first entry; nothing moves twice. An
-- adjustment that names a job gives back for it, once, to the account that bought it: PT404 not_found for a
-- job of another's, or of nobody's.
CREATE FUNCTION punchcard.move_credits(
    p_kind punchcard.entry_kind, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text,
    OUT entry punchcard.ledger, OUT replayed boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    balance punchcard.accounts;
    total bigint;
BEGIN
    IF p_account_id IS NULL OR p_amount IS NULL OR p_amount = 0 OR abs(p_amount::numeric) > 1e15
        OR (p_kind = 'grant' AND p_amount < 0)
    THEN
        RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
            DETAIL = 'An account and a whole amount between 1 and 1000000000000000 are required.';
    END IF;
    IF p_key IS NULL OR p_key !~ E'^[\\x20-\\x7e]{1,128}$' THEN
        RAISE EXCEPTION 'idempotency_key_required' USING ERRCODE = 'PT422',
            DETAIL = 'A key of 1 to 128 printable ASCII characters names this movement.';
    END IF;
    IF length(p_reason) > 500 THEN
        RAISE EXCEPTION 'reason_too_long' USING ERRCODE = 'PT422', DETAIL = 'A reason has at most 500 characters.';
    END IF;
    IF p_job_id IS NOT NULL THEN
        -- A job is charged by its hold alone, and once.
        IF p_amount < 0 THEN
            RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
                DETAIL = 'What names a job gives back for it: its amount is above 0. A charge names none.';
        END IF;
        PERFORM FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id = p_job_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'The account has no such job.';
        END IF;
    END IF;

    IF p_amount > 0 THEN
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    END IF;
    -- The row lock comes first: whoever holds it sees every earlier movement from outside.
    SELECT * INTO balance FROM punchcard.accounts WHERE id = p_account_id AND share = 0 FOR NO KEY UPDATE;

    SELECT * INTO entry FROM punchcard.ledger WHERE account_id = p_account_id AND idempotency_key = p_key;
    IF FOUND THEN
        IF (entry.kind, entry.amount, entry.job_id, entry.reason)
            IS DISTINCT FROM (p_kind, p_amount, p_job_id, p_reason)
        THEN
            RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
                DETAIL = 'This key was used for another movement.';
        END IF;
        replayed := true;
        RETURN;
    END IF;

    total := balance.available;
    -- Other shares may have some, also of an account that is not spread any more: what was held on them came back.
    IF balance.id IS NOT NULL AND total + p_amount < 0 THEN
        total := punchcard.deal_credits(p_account_id, balance.spread, 0, -p_amount);
    END IF;
    IF balance.id IS NULL OR total + p_amount < 0 THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', -p_amount, 'available', coalesce(total, 0))::text;
    END IF;
    -- Over all shares: under this lock what they have in all grows by nobody else.
    IF p_amount > 0 AND 1000000000000000000 - p_amount
        < (SELECT sum(a.available + a.held) FROM punchcard.accounts a WHERE a.id = p_account_id)
    THEN
        RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422', DETAIL = 'An account holds at most 10^18 credits.';
    END IF;
    IF p_job_id IS NOT NULL
        AND EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = p_job_id AND l.kind = p_kind)
    THEN
        RAISE EXCEPTION 'already_adjusted' USING ERRCODE = 'PT409',
            DETAIL = 'This job has its one adjustment already.';
    END IF;

    UPDATE punchcard.accounts a SET available = a.available + p_amount
    WHERE a.id = p_account_id AND a.share = 0 RETURNING * INTO balance;
    INSERT INTO punchcard.ledger (account_id, kind, amount, available_after, held_after, job_id, idempotency_key, reason)
    VALUES (p_account_id, p_kind, p_amount, balance.available, balance.held, p_job_id, p_key, p_reason)
    RETURNING * INTO entry;
    replayed := false;
END $$;

-- Grants credits, once for each key; the first grant creates the account.
CREATE FUNCTION punchcard.grant_credits(
    p_account_id uuid, p_amount bigint, p_key text, p_reason text DEFAULT NULL,
    OUT entry punchcard.ledger, OUT replayed boolean)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM punchcard.move_credits('grant', p_account_id, p_amount, p_key, NULL, p_reason)
$$;

-- The ADR's function, made safe: a key is required, there is a ledger entry, an overdraft is refused, and a
-- job that it names is the account's own.
-- Answers the credits available afterwards.
CREATE FUNCTION punchcard.increment_user_credits(
    p_user_id uuid, p_amount bigint, p_key text, p_job_id uuid DEFAULT NULL, p_reason text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT FROM punchcard.move_credits('adjust', p_user_id, p_amount, p_key, p_job_id, p_reason);
    SELECT b.available FROM punchcard.balances b WHERE b.account_id = p_user_id;
$$;

SELECT punchcard.revoke_defaults();
