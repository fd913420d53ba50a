-- The caller is told no SQL: the operator finds in the log what the team's table or function said.
CREATE OR REPLACE FUNCTION punchcard.source_failed(p_account_id uuid, p_state text, p_message text)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE LOG 'punchcard: the credit source failed for %: % %', p_account_id, p_state, p_message;
    RAISE EXCEPTION 'credit_source_failed' USING ERRCODE = 'PT503',
        DETAIL = 'The credits could not be moved.';
END $$;
