-- Spreads an account over p_shares shares (1 brings it back together), so that as many buyers go at once.
CREATE OR REPLACE FUNCTION punchcard.spread_account(p_account_id uuid, p_shares integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_shares IS NULL OR p_shares NOT BETWEEN 1 AND 64 THEN
        RAISE EXCEPTION 'invalid_shares' USING ERRCODE = 'PT422', DETAIL = 'An account has 1 to 64 shares.';
    END IF;
    PERFORM punchcard.refuse_closed(p_account_id);
    UPDATE punchcard.accounts a SET spread = p_shares WHERE a.id = p_account_id AND a.share = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown_account' USING ERRCODE = 'PT422', DETAIL = 'No such account.';
    END IF;
    -- Share 0 is held by now, and nothing else is waited for: neither here, for one that is there and in
    -- somebody's hands, nor when it is dealt. What such a share has stays there, and is found by whoever
    -- lacks it.
    INSERT INTO punchcard.accounts (id, share)
    SELECT p_account_id, s FROM generate_series(1, p_shares - 1) s
    WHERE NOT EXISTS (SELECT FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = s);
    PERFORM punchcard.deal_credits(p_account_id, p_shares, 0, 0, true);
END $$;
