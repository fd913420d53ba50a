-- Checks all that `enqueue_batch` checks, by doing it, and undoes it again: answers the price of all jobs,
-- and what the account would have left. Refuses as `enqueue_batch` does.
CREATE OR REPLACE FUNCTION punchcard.validate_batch(
    p_account_id uuid, p_jobs json, OUT price bigint, OUT available_after bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT sum(e.price) INTO price FROM punchcard.enqueue_batch(p_account_id, p_jobs) e;
    SELECT b.available INTO available_after FROM punchcard.balances b WHERE b.account_id = p_account_id;
    -- What was found out stays in the variables; all else is as before.
    RAISE EXCEPTION 'validated' USING ERRCODE = 'PT200';
EXCEPTION WHEN SQLSTATE 'PT200' THEN
    available_after := coalesce(available_after, 0);
END $$;
