-- Enters what was deferred for these jobs, or, without any, for up to 1,000 accounts of which something
-- waits: of whoever's row can be had within 20 milliseconds in all. The others' waits for whoever holds them
-- next.
CREATE OR REPLACE FUNCTION punchcard.enter_deferred(p_job_ids uuid[] DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
DECLARE
    until timestamptz := clock_timestamp() + interval '20 milliseconds';
    usual text := current_setting('lock_timeout');
    account record;
    patience double precision;
BEGIN
    FOR account IN
        SELECT w.account_id, w.share,
               count(*) OVER () - row_number() OVER (ORDER BY w.account_id, w.share) + 1 AS waiting
        FROM (SELECT DISTINCT d.account_id, d.share FROM punchcard.deferred_entries d
              WHERE d.entry IS NULL AND (p_job_ids IS NULL OR d.job_id = ANY (p_job_ids)) LIMIT 1000) w
        ORDER BY w.account_id, w.share
    LOOP
        PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
        FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
            PERFORM punchcard.fold_entries(account.account_id, ARRAY[account.share]);
            CONTINUE;
        END IF;
        patience := extract(epoch FROM until - clock_timestamp()) * 1000 / account.waiting;
        CONTINUE WHEN patience < 1;
        BEGIN
            PERFORM set_config('lock_timeout', floor(patience)::text, true);
            PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
            FOR NO KEY UPDATE;
            PERFORM set_config('lock_timeout', usual, true);
            PERFORM punchcard.fold_entries(account.account_id, ARRAY[account.share]);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL;
        END;
    END LOOP;
END $$;
