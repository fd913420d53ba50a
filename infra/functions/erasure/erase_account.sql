-- Closes an account for good (ADR 21): from now on it buys nothing, is granted nothing, and has no job that
-- anybody may read. Its payloads are cleared by `erase_payloads`, step by step. Asked again, it answers how
-- far that is. Raises PT404 not_found, if there is neither such an account nor a webhook of its.
CREATE OR REPLACE FUNCTION punchcard.erase_account(p_account_id uuid) RETURNS punchcard.erasures
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    erasure punchcard.erasures;
BEGIN
    SELECT * INTO erasure FROM punchcard.erasures e WHERE e.account_id = p_account_id;
    IF FOUND THEN
        RETURN erasure;
    END IF;
    IF EXISTS (SELECT FROM punchcard.webhooks w WHERE w.account_id = p_account_id) THEN
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    END IF;
    -- Whoever buys holds a share until they have bought: what is bought is there before this is.
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is no such account.';
    END IF;
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE;
    UPDATE punchcard.accounts a SET spread = 0 WHERE a.id = p_account_id;
    INSERT INTO punchcard.erasures (account_id, asked_at, look_at) VALUES (p_account_id, now(), now())
    ON CONFLICT DO NOTHING;
    DELETE FROM punchcard.webhooks w WHERE w.account_id = p_account_id;
    -- For the next tick; one that is at it looks for more by itself.
    UPDATE punchcard.upkeep u SET next_at = now()
    WHERE u.ctid = (SELECT l.ctid FROM punchcard.upkeep l WHERE l.task = 'erasures' AND l.next_at > now()
                    FOR NO KEY UPDATE SKIP LOCKED);
    SELECT * INTO STRICT erasure FROM punchcard.erasures e WHERE e.account_id = p_account_id;
    RETURN erasure;
END $$;
