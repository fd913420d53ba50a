-- The type of the column that names the account in the team's table p_oid, called p_table. Refuses a table
-- that has not such columns, or may have two rows for an account.
CREATE OR REPLACE FUNCTION punchcard.check_source_table(
    p_oid oid, p_table text, p_account_column text, p_balance_column text, OUT account_type text)
    LANGUAGE plpgsql AS $$
BEGIN
    SELECT format_type(a.atttypid, NULL) INTO account_type FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = p_oid AND a.attname = p_account_column
      AND a.atttypid IN ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype);
    IF account_type IS NULL OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p_oid AND a.attname = p_balance_column
          AND a.atttypid IN ('integer'::regtype, 'bigint'::regtype, 'numeric'::regtype))
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no table %s with a column %s (uuid or text) and a column %s (integer, bigint or '
            'numeric); name its schema too.',
            p_table, p_account_column, p_balance_column);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = p_oid AND a.attname = p_account_column
        WHERE i.indrelid = p_oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
          AND i.indpred IS NULL)
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'An account may have two rows in %s: add a unique index on %s.', p_table, p_account_column);
    END IF;
END $$;
