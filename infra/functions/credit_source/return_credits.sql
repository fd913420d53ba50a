-- Returns what is available to the source, for up to 50 accounts that it knows; answers how many were
-- returned. What it does not take now goes on waiting: a tick calls this in a statement of its own, and holds
-- nothing up by it.
CREATE OR REPLACE FUNCTION punchcard.return_credits() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    began timestamptz := clock_timestamp();
    begun timestamptz;
    returned bigint := 0;
    moved integer;
    account uuid;
    total bigint;
BEGIN
    FOR account IN
        -- Any of them, so that accounts that stay behind keep no other waiting; in order, so that none
        -- deadlock.
        SELECT r.id FROM (
            SELECT w.id FROM (SELECT DISTINCT a.id FROM punchcard.accounts a WHERE a.available > 0) w
            WHERE punchcard.source_knows(w.id)
            ORDER BY random() LIMIT 50) r
        ORDER BY r.id
    LOOP
        EXIT WHEN clock_timestamp() > began + interval '5 seconds';
        moved := 0;
        begun := clock_timestamp();
        BEGIN
            SET CONSTRAINTS ALL DEFERRED;
            PERFORM FROM punchcard.accounts a WHERE a.id = account AND a.share = 0 FOR NO KEY UPDATE;
            PERFORM punchcard.fold_entries(account, ARRAY(
                SELECT a.share FROM punchcard.accounts a
                WHERE a.id = account ORDER BY a.share FOR NO KEY UPDATE));
            -- As much as one movement may: the rest goes with a later tick.
            SELECT least(sum(a.available), 1000000000000000) INTO total
            FROM punchcard.accounts a WHERE a.id = account;
            IF total > 0 THEN
                PERFORM punchcard.move_credits('adjust', account, -total, 'returned:' || punchcard.uuid_v7(),
                                               NULL, 'returned to the credit source');
                PERFORM punchcard.move_at_source(account, total);
                SET CONSTRAINTS ALL IMMEDIATE;
                moved := 1;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
            RAISE LOG 'punchcard: % credits of % wait to be returned: % %', total, account, SQLSTATE, SQLERRM;
            moved := 0;
            -- The time-out of this statement is over, and bounds nothing any more.
            EXIT WHEN SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second';
        END;
        returned := returned + moved;
    END LOOP;
    RETURN returned;
END $$;
