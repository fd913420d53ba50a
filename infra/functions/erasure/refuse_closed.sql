-- Raises PT403 account_closed for an account that is erased, or is to be. With p_wait, whoever closes it is
-- waited for, and waits for the caller's transaction.
CREATE OR REPLACE FUNCTION punchcard.refuse_closed(p_account_id uuid, p_wait boolean DEFAULT true)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_wait THEN
        PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR SHARE;
    END IF;
    IF EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = p_account_id) THEN
        RAISE EXCEPTION 'account_closed' USING ERRCODE = 'PT403',
            DETAIL = 'This account was erased: it is closed for good.';
    END IF;
END $$;
