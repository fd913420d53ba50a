-- Refuses, as `hold_credits` would, whoever is over their limits or plainly lacks the credits, by a look that
-- locks nothing: before what is dear to take in is read, hashed or written. Whoever passes it may still be
-- refused there.
CREATE OR REPLACE FUNCTION punchcard.look_first(
    p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_key text) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    total numeric;
BEGIN
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    PERFORM punchcard.pass_limits(p_account_id, p_jobs, p_bytes, p_look => true);
    SELECT coalesce(sum(b.available), 0) INTO total FROM punchcard.balances b
    WHERE b.account_id = p_account_id;
    -- One's own first: what is given back to the source meanwhile counts twice rather than not at all.
    IF total < p_amount AND EXISTS (SELECT FROM punchcard.credit_source) THEN
        total := total + coalesce(punchcard.drawable(punchcard.source_balance(p_account_id, false)), 0);
    END IF;
    IF total < p_amount THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', p_amount, 'available', total)::text;
    END IF;
EXCEPTION WHEN SQLSTATE 'PT402' OR SQLSTATE 'PT422' OR SQLSTATE 'PT429' THEN
    -- A twin may have been bought with this key since it was looked for: then this is its replay.
    IF p_key IS NULL OR NOT EXISTS (
        SELECT FROM punchcard.idempotency_keys k
        WHERE k.account_id = p_account_id AND k.key = punchcard.key_digest(p_key))
    THEN
        RAISE;
    END IF;
END $$;
