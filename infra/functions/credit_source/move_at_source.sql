-- Moves credits at the source, and looks whether they moved: an existing function may clamp, report an error
-- as a row, or do nothing. Then nothing has happened: this raises PT503.
CREATE OR REPLACE FUNCTION punchcard.move_at_source(p_account_id uuid, p_amount bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source punchcard.credit_source;
    before numeric;
    moved numeric;
BEGIN
    SELECT * INTO STRICT source FROM punchcard.credit_source;
    before := punchcard.source_balance(p_account_id, true);
    PERFORM set_config('search_path', source.search_path, true);
    EXECUTE source.move_balance USING p_account_id, p_amount;
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    moved := punchcard.source_balance(p_account_id, true) - before;
    IF moved IS DISTINCT FROM p_amount THEN
        RAISE EXCEPTION 'they were to move by %, and moved by %', p_amount, coalesce(moved::text, 'nothing');
    END IF;
EXCEPTION WHEN deadlock_detected OR lock_not_available OR serialization_failure OR SQLSTATE 'PT503' THEN
    RAISE;
WHEN OTHERS OR assert_failure THEN
    PERFORM punchcard.source_failed(p_account_id, SQLSTATE, SQLERRM);
END $$;
