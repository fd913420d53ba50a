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
    own numeric;
BEGIN
    account_type := punchcard.check_source_table(team_table, p_table, p_account_column, p_balance_column);
    SELECT coalesce(sum(a.available + a.held), 0) INTO own FROM punchcard.accounts a;
    IF own > 0 AND NOT p_force
        AND NOT EXISTS (SELECT FROM punchcard.credit_source c WHERE to_regclass(c.balances) = team_table)
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'Punchcard''s own accounts have %s credits, which would go to %s as they come free: adjust them '
            'away first, or force it.',
            own, p_table);
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
    RETURN QUERY SELECT * FROM punchcard.try_credit_source(source);
END $$;
