-- An account's balance at the source, its row locked if p_lock; NULL if it has none. One that is no number
-- fails.
CREATE OR REPLACE FUNCTION punchcard.source_balance(p_account_id uuid, p_lock boolean) RETURNS numeric
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source punchcard.credit_source;
    balance numeric;
BEGIN
    SELECT * INTO source FROM punchcard.credit_source;
    IF FOUND THEN
        EXECUTE source.read_balance || CASE WHEN p_lock THEN ' FOR NO KEY UPDATE' ELSE '' END
            INTO balance USING p_account_id;
        IF balance IN ('NaN', 'Infinity', '-Infinity') THEN
            RAISE EXCEPTION 'its balance is %', balance;
        END IF;
    END IF;
    RETURN balance;
EXCEPTION WHEN deadlock_detected OR lock_not_available OR serialization_failure THEN
    RAISE;
WHEN OTHERS OR assert_failure THEN
    PERFORM punchcard.source_failed(p_account_id, SQLSTATE, SQLERRM);
END $$;
