-- What an account has, at the source too, if that answers.
CREATE OR REPLACE FUNCTION punchcard.balance(p_account_id uuid) RETURNS TABLE (available bigint, held bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there bigint;
BEGIN
    BEGIN
        there := punchcard.drawable(punchcard.source_balance(p_account_id, false));
    EXCEPTION WHEN SQLSTATE 'PT503' THEN
        NULL;
    END;
    RETURN QUERY
    SELECT coalesce(sum(b.available), 0)::bigint + coalesce(there, 0), coalesce(sum(b.held), 0)::bigint
    FROM punchcard.balances b WHERE b.account_id = p_account_id
    HAVING count(*) > 0 OR there IS NOT NULL;
END $$;
