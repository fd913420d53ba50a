-- Whether the source knows an account, and can say what it has. One that it cannot say keeps no other from
-- being asked for.
CREATE OR REPLACE FUNCTION punchcard.source_knows(p_account_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN punchcard.source_balance(p_account_id, false) IS NOT NULL;
EXCEPTION WHEN SQLSTATE 'PT503' THEN
    RETURN false;
END $$;
