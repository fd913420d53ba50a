-- Enters what was deferred for these jobs, or, without any, for up to 1,000 accounts of which something
-- waits: of whoever's row can be had within p_patience milliseconds in all. The others' waits for whoever
-- holds them next, and so does what the database refuses to enter, which the server's log tells: it keeps no
-- other waiting.
CREATE OR REPLACE FUNCTION punchcard.enter_deferred(p_job_ids uuid[], p_patience integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
DECLARE
    until timestamptz := clock_timestamp() + p_patience * interval '1 millisecond';
    patience double precision;
    usual text := current_setting('lock_timeout');
    account record;
BEGIN
    FOR account IN
        SELECT w.account_id, w.share,
               count(*) OVER () - row_number() OVER (ORDER BY w.account_id, w.share) + 1 AS waiting
        FROM (SELECT DISTINCT d.account_id, d.share FROM punchcard.deferred_entries d
              WHERE d.entry IS NULL AND (p_job_ids IS NULL OR d.job_id = ANY (p_job_ids)) LIMIT 1000) w
        ORDER BY w.account_id, w.share
    LOOP
        BEGIN
            PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
            FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                patience := extract(epoch FROM until - clock_timestamp()) * 1000 / account.waiting;
                CONTINUE WHEN patience < 1;
                PERFORM set_config('lock_timeout', floor(patience)::text, true);
                PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
                FOR NO KEY UPDATE;
                PERFORM set_config('lock_timeout', usual, true);
            END IF;
            PERFORM punchcard.fold_entries(account.account_id, ARRAY[account.share]);
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                NULL;
            WHEN OTHERS OR assert_failure THEN
                RAISE LOG 'punchcard: what waits of % cannot be entered: % %', account.account_id, SQLSTATE,
                    SQLERRM;
        END;
    END LOOP;
END $$;
