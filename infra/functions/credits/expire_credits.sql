-- For upkeep: takes what is left of grants whose time is over, of up to 50 accounts; answers whether there
-- are more. What is held for unfinished jobs is taken once it comes back, if it does. An account that
-- somebody holds is looked at again some minutes later.
CREATE OR REPLACE FUNCTION punchcard.expire_credits() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    account uuid;
    lapsed record;
    free bigint;
    accounts uuid[];
BEGIN
    SELECT array_agg(w.account_id) INTO accounts
    FROM (SELECT g.account_id FROM punchcard.dated_grants g
          WHERE g.left_over > 0 AND g.look_at <= now()
          ORDER BY g.look_at LIMIT 50) w;
    FOR account IN SELECT DISTINCT w.id FROM unnest(accounts) AS w (id) ORDER BY w.id LOOP
        BEGIN
            PERFORM FROM punchcard.accounts a WHERE a.id = account AND a.share = 0 FOR NO KEY UPDATE;
            PERFORM punchcard.fold_entries(account, ARRAY(
                SELECT a.share FROM punchcard.accounts a
                WHERE a.id = account ORDER BY a.share FOR NO KEY UPDATE));
            PERFORM punchcard.deal_spent(account);
            FOR lapsed IN
                SELECT g.entry, g.expires_at, g.left_over FROM punchcard.dated_grants g
                WHERE g.account_id = account AND g.left_over > 0 AND g.expires_at <= now()
                ORDER BY g.expires_at, g.entry
            LOOP
                SELECT least(sum(a.available), lapsed.left_over) INTO free
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
        EXCEPTION WHEN lock_not_available THEN
            UPDATE punchcard.dated_grants g SET look_at = now() + interval '5 minutes'
            WHERE g.account_id = account AND g.left_over > 0 AND g.look_at <= now();
        END;
    END LOOP;
    RETURN EXISTS (SELECT FROM punchcard.dated_grants g WHERE g.left_over > 0 AND g.look_at <= now());
END $$;
