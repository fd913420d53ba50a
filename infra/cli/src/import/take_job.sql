-- take_job: queues one job that was paid for in the old system: its price comes in as a grant and is held in
-- the transaction that queues it. False if it cannot be bought any more: then nothing is done, and its mark
-- stays. Grant and hold are entered one behind the other: an entry says what the balance is after it.
CREATE FUNCTION pg_temp.punchcard_take_job(p_row punchcard_rows) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    offer punchcard.kinds;
    due timestamptz := greatest(p_row.run_at, now());
    movement record;
    balance record;
    bytes integer := octet_length(p_row.input::text);
    priority smallint;
BEGIN
    SELECT * INTO offer FROM punchcard.kinds k WHERE k.name = p_row.kind AND k.retired_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- As for whoever buys: before others goes only whom the kind lets. The key's hash has the row's own,
    -- which its buyer sends again.
    priority := least(p_row.priority, offer.max_priority);
    IF EXISTS (SELECT FROM punchcard.jobs j
               WHERE j.account_id = p_row.account_id AND j.id = p_row.job_id)
    THEN
        RETURN false;
    END IF;
    IF p_row.key IS NOT NULL THEN
        INSERT INTO punchcard.idempotency_keys (account_id, key, request_hash, job_id)
        VALUES (p_row.account_id, punchcard.key_digest(p_row.key),
                punchcard.request_hash(p_row.key, concat_ws(E'\n', p_row.kind, p_row.priority), p_row.input),
                p_row.job_id)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    IF p_row.price > 0 THEN
        movement := punchcard.grant_credits(p_row.account_id, p_row.price, 'import:' || p_row.job_id,
                                            'paid before the import');
        IF movement.replayed THEN
            RAISE EXCEPTION 'the key import:% was used for another grant', p_row.job_id;
        END IF;
    END IF;
    balance := punchcard.hold_credits(p_row.account_id, p_row.price, 1, bytes, false);
    INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, scheduled_at,
                                expires_at, created_at, terms_id, share, priority, max_attempts, kind, input)
    VALUES (p_row.account_id, p_row.job_id, p_row.price, balance.entry, balance.available, balance.held, due,
            due + make_interval(secs => offer.life_seconds), p_row.created_at, offer.terms_id, balance.share,
            priority, offer.max_attempts, p_row.kind, p_row.input);
    INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, bytes, priority,
                                 max_attempts, run_at, expires_at)
    VALUES (p_row.job_id, p_row.account_id, balance.share, p_row.kind, p_row.price, offer.terms_id, bytes,
            priority, offer.max_attempts, due, due + make_interval(secs => offer.life_seconds));
    RETURN true;
END $$
