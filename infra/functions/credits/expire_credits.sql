-- For upkeep: takes what is left of the grants of one account whose time is over, of up to 200 of them, and
-- answers whether there may be more. What is held belongs to what lapses first, and is taken once it comes
-- back, if it does. Nobody is waited for: an account that somebody holds, or that fails, is looked at again
-- some minutes later, and keeps no other waiting.
CREATE OR REPLACE FUNCTION punchcard.expire_credits() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    account uuid;
    shares smallint[];
    held bigint;
    lapsed record;
    free bigint;
    why text;
BEGIN
    SELECT g.account_id INTO account FROM punchcard.dated_grants g
    WHERE g.left_over > 0 AND g.look_at <= now() ORDER BY g.look_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    BEGIN
        shares := ARRAY(SELECT a.share FROM punchcard.accounts a
                        WHERE a.id = account ORDER BY a.share FOR NO KEY UPDATE SKIP LOCKED);
        IF cardinality(shares) < (SELECT count(*) FROM punchcard.accounts a WHERE a.id = account) THEN
            RAISE EXCEPTION 'somebody holds it' USING ERRCODE = 'lock_not_available';
        END IF;
        PERFORM punchcard.fold_entries(account, shares);
        held := punchcard.deal_spent(account);
        FOR lapsed IN
            SELECT g.entry, g.left_over - least(g.left_over, greatest(held - g.before, 0)) AS amount
            FROM (SELECT g.entry, g.expires_at, g.look_at, g.left_over,
                         sum(g.left_over) OVER (ORDER BY g.expires_at, g.entry) - g.left_over AS before
                  FROM punchcard.dated_grants g WHERE g.account_id = account AND g.left_over > 0) g
            WHERE g.expires_at <= now() AND g.look_at <= now()
            ORDER BY g.expires_at, g.entry LIMIT 200
        LOOP
            -- What came back a moment ago may still wait to be entered.
            SELECT least(sum(a.available), lapsed.amount) INTO free
            FROM punchcard.accounts a WHERE a.id = account;
            IF free > 0 THEN
                PERFORM punchcard.move_credits(
                    'expire', account, -free, format('expired:%s:%s', lapsed.entry, punchcard.uuid_v7()),
                    NULL, format('left of the grant with the number %s', lapsed.entry));
                -- What lapsed is not spent.
                UPDATE punchcard.dated_accounts d SET total = d.total - free WHERE d.account_id = account;
            END IF;
            UPDATE punchcard.dated_grants g
            SET left_over = g.left_over - free, look_at = now() + interval '10 minutes'
            WHERE g.account_id = account AND g.entry = lapsed.entry;
        END LOOP;
        -- One that lapses later is looked at so that it was dealt with before its entries are carried.
        UPDATE punchcard.dated_grants g SET look_at = least(g.expires_at, now() + interval '30 days')
        WHERE g.account_id = account AND g.left_over > 0 AND g.expires_at > now() AND g.look_at <= now();
        DELETE FROM punchcard.dated_accounts d
        WHERE d.account_id = account AND NOT EXISTS (
            SELECT FROM punchcard.dated_grants g WHERE g.account_id = account AND g.left_over > 0);
    EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
        GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
        RAISE LOG 'punchcard: what lapses of % has to wait: % %', account, SQLSTATE, why;
        UPDATE punchcard.dated_grants g SET look_at = now() + interval '5 minutes'
        WHERE g.account_id = account AND g.entry = ANY (ARRAY(
            SELECT o.entry FROM punchcard.dated_grants o
            WHERE o.account_id = account AND o.left_over > 0 AND o.look_at <= now()
            FOR NO KEY UPDATE SKIP LOCKED));
        UPDATE punchcard.dated_accounts d SET error = left(why, 500)
        WHERE d.account_id = ANY (ARRAY(
            SELECT o.account_id FROM punchcard.dated_accounts o
            WHERE o.account_id = account FOR NO KEY UPDATE SKIP LOCKED));
    END;
    RETURN true;
END $$;
