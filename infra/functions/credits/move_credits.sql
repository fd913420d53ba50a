-- Moves credits from outside (a payment, an operator's correction) once for each key: 'grant' or 'adjust';
-- or takes what has lapsed: 'expire'.
-- The first positive movement creates the account. Replays answer the first entry; nothing moves twice. An
-- adjustment that names a job gives back for it, once, to the account that bought it: PT404 not_found for a
-- job of another's, or of nobody's. A closed account is adjusted, but granted nothing: PT403 account_closed.
CREATE OR REPLACE FUNCTION punchcard.move_credits(
    p_kind punchcard.entry_kind, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text,
    p_expires_at timestamptz DEFAULT NULL,
    OUT entry punchcard.movements, OUT replayed boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    balance punchcard.accounts;
    total bigint;
BEGIN
    PERFORM punchcard.check_movement(p_kind, p_account_id, p_amount, p_key, p_job_id, p_reason);
    IF p_amount > 0 THEN
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    END IF;
    -- The row lock comes first: whoever holds it sees every earlier movement from outside.
    SELECT * INTO balance FROM punchcard.accounts WHERE id = p_account_id AND share = 0 FOR NO KEY UPDATE;

    SELECT * INTO entry FROM punchcard.movements m
    WHERE m.account_id = p_account_id AND m.idempotency_key = p_key;
    IF FOUND THEN
        IF (entry.kind, entry.amount, entry.job_id, entry.reason)
            IS DISTINCT FROM (p_kind, p_amount, p_job_id, p_reason)
            OR p_expires_at IS DISTINCT FROM (
                SELECT g.expires_at FROM punchcard.dated_grants g
                WHERE g.account_id = p_account_id AND g.entry = move_credits.entry.entry AND entry.share = 0)
        THEN
            RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
                DETAIL = 'This key was used for another movement.';
        END IF;
        replayed := true;
        RETURN;
    END IF;

    -- What was paid for stays right of an account that is closed; more is not sold to it.
    IF p_kind = 'grant' AND balance.spread = 0 THEN
        PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    END IF;
    IF p_expires_at IS NOT NULL THEN
        IF p_kind <> 'grant' OR p_expires_at NOT BETWEEN now() AND now() + interval '3660 days'
            OR EXISTS (SELECT FROM punchcard.credit_source)
        THEN
            RAISE EXCEPTION 'invalid_expires_at' USING ERRCODE = 'PT422', DETAIL =
                CASE WHEN p_expires_at < now() THEN 'That time is past.'
                     WHEN EXISTS (SELECT FROM punchcard.credit_source)
                     THEN 'No grant lapses where credits are drawn from a source.'
                     ELSE 'A grant lapses within ten years.' END;
        END IF;
        PERFORM punchcard.deal_spent(p_account_id);
    END IF;
    total := balance.available;
    -- Other shares may have some, also of an account that is not spread any more: what was held on them came
    -- back.
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
        RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
            DETAIL = 'An account holds at most 10^18 credits.';
    END IF;
    IF p_job_id IS NOT NULL
        AND EXISTS (SELECT FROM punchcard.movements m WHERE m.job_id = p_job_id)
    THEN
        RAISE EXCEPTION 'already_adjusted' USING ERRCODE = 'PT409',
            DETAIL = 'This job has its one adjustment already.';
    END IF;
    -- Behind that look, and under the account's lock: what gave back for a job is carried after the job is.
    IF p_job_id IS NOT NULL THEN
        PERFORM FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id = p_job_id;
        IF NOT FOUND THEN
            PERFORM FROM punchcard.archived_job(p_job_id, p_account_id) a WHERE a.account_id IS NOT NULL;
        END IF;
        IF NOT FOUND OR p_job_id < (SELECT r.carrying_before FROM punchcard.retention r) THEN
            PERFORM punchcard.refuse_gone(p_job_id);
            RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'The account has no such job.';
        END IF;
    END IF;

    UPDATE punchcard.accounts a SET available = a.available + p_amount, entries = a.entries + 1
    WHERE a.id = p_account_id AND a.share = 0 RETURNING * INTO balance;
    INSERT INTO punchcard.movements (account_id, share, entry, kind, amount, available_after, held_after,
                                     job_id, idempotency_key, reason)
    VALUES (p_account_id, 0, balance.entries, p_kind, p_amount, balance.available, balance.held, p_job_id,
            p_key, p_reason)
    RETURNING * INTO entry;
    IF p_expires_at IS NOT NULL THEN
        INSERT INTO punchcard.dated_grants (account_id, entry, expires_at, look_at, left_over)
        VALUES (p_account_id, entry.entry, p_expires_at, least(p_expires_at, now() + interval '30 days'),
                p_amount);
        UPDATE punchcard.dated_accounts d SET total = d.total + p_amount, entry = move_credits.entry.entry
        WHERE d.account_id = p_account_id;
    END IF;
    replayed := false;
END $$;
