-- Tries the source that was just taken on one account, and rolls that back: by what it does, not by what it
-- answers. Refuses what does not do as it must; answers what is worth a warning.
CREATE OR REPLACE FUNCTION punchcard.try_credit_source(p_source punchcard.credit_source) RETURNS SETOF text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account uuid;
    before numeric;
    after numeric;
    too_much bigint;
BEGIN
    BEGIN
        EXECUTE format('SELECT %I::uuid FROM %s LIMIT 1', p_source.account_column, p_source.balances)
        INTO account;
        before := punchcard.source_balance(account, true);
        IF before IS NULL THEN
            RAISE EXCEPTION 'the table shows no account to try it on';
        END IF;
        -- What is the team's runs under the team's path, and nothing of ours does.
        PERFORM set_config('search_path', p_source.search_path, true);
        EXECUTE p_source.move_balance USING account, '1'::pg_catalog.int8;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        after := punchcard.source_balance(account, true);
        IF after IS DISTINCT FROM before + 1 THEN
            RAISE EXCEPTION 'a refund of 1 made % of %', after, before;
        END IF;
        PERFORM set_config('search_path', p_source.search_path, true);
        EXECUTE p_source.move_balance USING account, '-1'::pg_catalog.int8;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        after := punchcard.source_balance(account, true);
        IF after IS DISTINCT FROM before THEN
            RAISE EXCEPTION 'a charge of 1 made % of %', after, before + 1;
        END IF;
        too_much := -(floor(before)::bigint + 1);
        BEGIN
            PERFORM set_config('search_path', p_source.search_path, true);
            EXECUTE p_source.move_balance USING account, too_much;
            PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
            after := punchcard.source_balance(account, true);
            RETURN NEXT CASE
                WHEN after < 0
                    THEN 'it lets a balance fall below zero: add CHECK ('
                        || quote_ident(p_source.balance_column) || ' >= 0)'
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
