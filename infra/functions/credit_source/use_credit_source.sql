-- Takes the team's credits as the source of all: p_function moves them, or else we update p_table. It is
-- tried on one account and rolled back, by what it does, not by what it answers; what does not do as it must
-- is refused. So is a change while credits are in Punchcard's own accounts, unless p_force: they would move
-- there too. Answers what is worth a warning.
CREATE OR REPLACE FUNCTION punchcard.use_credit_source(
    p_table text, p_account_column text, p_balance_column text, p_function text DEFAULT NULL,
    p_constants jsonb DEFAULT '{}', p_search_path text DEFAULT 'public', p_force boolean DEFAULT false)
    RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    team_table oid := to_regclass(p_table);
    account_type text;
    source punchcard.credit_source;
    account uuid;
    before numeric;
    after numeric;
BEGIN
    SELECT format_type(a.atttypid, NULL) INTO account_type FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = team_table AND a.attname = p_account_column
      AND a.atttypid IN ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype);
    IF account_type IS NULL OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = team_table AND a.attname = p_balance_column
          AND a.atttypid IN ('integer'::regtype, 'bigint'::regtype, 'numeric'::regtype))
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no table %s with a column %s (uuid or text) and a column %s (integer, bigint or '
            'numeric); name its schema too.',
            p_table, p_account_column, p_balance_column);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = team_table AND a.attname = p_account_column
        WHERE i.indrelid = team_table AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
          AND i.indpred IS NULL)
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'An account may have two rows in %s: add a unique index on %s.', p_table, p_account_column);
    END IF;

    SELECT coalesce(sum(a.available + a.held), 0) INTO before FROM punchcard.accounts a;
    IF before > 0 AND NOT p_force
        AND NOT EXISTS (SELECT FROM punchcard.credit_source c WHERE to_regclass(c.balances) = team_table)
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'Punchcard''s own accounts have %s credits, which would go to %s as they come free: adjust them '
            'away first, or force it.',
            before, p_table);
    END IF;
    IF p_search_path ~* 'pg_temp' THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422',
            DETAIL =
       'The search_path must not name pg_temp: it is added, last, so that a temporary table shadows nothing.';
    END IF;
    source.only_one := true;
    source.balances := team_table::regclass::text;
    source.account_column := p_account_column;
    source.balance_column := p_balance_column;
    source.mover := p_function;
    source.search_path := p_search_path || ', pg_temp';
    source.read_balance := format('SELECT %I::numeric FROM %s WHERE %I = $1::%s', p_balance_column,
                                  source.balances, p_account_column, account_type);
    source.move_balance := CASE WHEN p_function IS NULL THEN
        -- Triggers of the team's run under its path; what is written here means PostgreSQL's own operators
        -- all the same.
        format('UPDATE %s SET %I = %I OPERATOR(pg_catalog.+) $2 WHERE %I OPERATOR(pg_catalog.=) $1::%s',
               source.balances, p_balance_column, p_balance_column, p_account_column, account_type)
        ELSE punchcard.call_of_mover(p_function, p_constants) END;
    source.set_at := now();
    DELETE FROM punchcard.credit_source WHERE only_one;
    INSERT INTO punchcard.credit_source SELECT source.*;

    BEGIN
        EXECUTE format('SELECT %I::uuid FROM %s LIMIT 1', p_account_column, source.balances) INTO account;
        before := punchcard.source_balance(account, true);
        IF before IS NULL THEN
            RAISE EXCEPTION 'the table shows no account to try it on';
        END IF;
        PERFORM set_config('search_path', source.search_path, true);
        EXECUTE source.move_balance USING account, 1::bigint;
        after := punchcard.source_balance(account, true);
        IF after IS DISTINCT FROM before + 1 THEN
            RAISE EXCEPTION 'a refund of 1 made % of %', after, before;
        END IF;
        EXECUTE source.move_balance USING account, -1::bigint;
        after := punchcard.source_balance(account, true);
        IF after IS DISTINCT FROM before THEN
            RAISE EXCEPTION 'a charge of 1 made % of %', after, before + 1;
        END IF;
        BEGIN
            EXECUTE source.move_balance USING account, -(floor(before)::bigint + 1);
            after := punchcard.source_balance(account, true);
            RETURN NEXT CASE
                WHEN after < 0
                    THEN 'it lets a balance fall below zero: add CHECK ('
                        || quote_ident(p_balance_column) || ' >= 0)'
                WHEN after = before
                    THEN 'it refuses an overdraft without an error: callers that do not look believe it'
                ELSE 'it clamps an overdraft: callers that do not look get work for less than its price' END;
        EXCEPTION WHEN OTHERS THEN
            NULL;  -- as it should be
        END;
        RAISE EXCEPTION USING ERRCODE = 'PT000';
    EXCEPTION WHEN SQLSTATE 'PT000' THEN
        NULL;  -- tried, and rolled back
    WHEN OTHERS THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422',
            DETAIL = format('It was tried on one account, and rolled back: %s.', SQLERRM);
    END;
END $$;
