-- Credits that the team keeps in a table of its own (ADR 10). A purchase draws what it lacks from there, a refund goes
-- back there; both in the statement that holds or releases, so that Punchcard's own books stay as they are: credits
-- come in by a grant and leave by an adjustment. What cannot be returned at once waits in `available`, where the next
-- purchase finds it first and each tick tries again.

CREATE TABLE punchcard.credit_source (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    balances        text NOT NULL,      -- the team's table, and in it the columns of account and balance
    account_column  text NOT NULL,
    balance_column  text NOT NULL,
    mover           text,               -- the team's function that moves credits; NULL: we update the table
    read_balance    text NOT NULL,      -- as SQL: $1 is the account
    move_balance    text NOT NULL,      -- as SQL: $2 is the amount, below 0 to charge
    search_path     text NOT NULL,      -- what the team's function expects
    set_at          timestamptz NOT NULL DEFAULT now()
);

-- An account's balance at the source, its row locked if p_lock; NULL if it has none.
CREATE FUNCTION punchcard.source_balance(p_account_id uuid, p_lock boolean) RETURNS numeric
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    source punchcard.credit_source;
    balance numeric;
BEGIN
    SELECT * INTO source FROM punchcard.credit_source;
    IF FOUND THEN
        EXECUTE source.read_balance || CASE WHEN p_lock THEN ' FOR NO KEY UPDATE' ELSE '' END
            INTO balance USING p_account_id;
    END IF;
    RETURN balance;
END $$;

-- Moves credits at the source, and looks whether they moved: an existing function may clamp, report an error as a row,
-- or do nothing. Then nothing has happened: this raises PT503.
CREATE FUNCTION punchcard.move_at_source(p_account_id uuid, p_amount bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    source punchcard.credit_source;
    before numeric := punchcard.source_balance(p_account_id, true);
    moved numeric;
BEGIN
    SELECT * INTO STRICT source FROM punchcard.credit_source;
    PERFORM set_config('search_path', source.search_path, true);
    EXECUTE source.move_balance USING p_account_id, p_amount;
    PERFORM set_config('search_path', '', true);
    moved := punchcard.source_balance(p_account_id, true) - before;
    IF moved IS DISTINCT FROM p_amount THEN
        RAISE EXCEPTION 'credit_source_failed' USING ERRCODE = 'PT503',
            DETAIL = format('The credits were to move by %s and moved by %s.', p_amount, coalesce(moved::text, 'nothing'));
    END IF;
EXCEPTION WHEN deadlock_detected OR lock_not_available OR serialization_failure OR SQLSTATE 'PT503' THEN
    RAISE;
WHEN OTHERS THEN
    -- The caller is told no SQL; the operator finds it in the log.
    RAISE LOG 'punchcard: credits of % did not move at their source: % %', p_account_id, SQLSTATE, SQLERRM;
    RAISE EXCEPTION 'credit_source_failed' USING ERRCODE = 'PT503', DETAIL = 'The credits could not be moved.';
END $$;

-- Makes p_amount available, drawn from the source as far as it is missing. Answers what there is in all; moves nothing if
-- that is less.
CREATE FUNCTION punchcard.draw_credits(p_account_id uuid, p_amount bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    total bigint;
    there bigint;
BEGIN
    INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    -- Accounts before the source, everywhere: two buyers do not deadlock.
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE;
    SELECT sum(a.available) INTO total FROM punchcard.accounts a WHERE a.id = p_account_id;
    IF total >= p_amount THEN
        RETURN total;
    END IF;
    there := greatest(floor(coalesce(punchcard.source_balance(p_account_id, true), 0)), 0);
    IF total + there >= p_amount THEN
        PERFORM punchcard.move_at_source(p_account_id, total - p_amount);
        PERFORM punchcard.move_credits('grant', p_account_id, p_amount - total, 'drawn:' || punchcard.uuid_v7(), NULL,
                                       'drawn from the credit source');
        RETURN p_amount;
    END IF;
    RETURN total + there;
END $$;

-- Returns what is available to the source: of the accounts of jobs that ended without success, or (NULL) of up to 100
-- accounts where something waits. What the source does not take now goes on waiting, and holds nothing else up.
CREATE FUNCTION punchcard.return_credits(p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    account uuid;
    total bigint;
BEGIN
    FOR account IN
        (SELECT DISTINCT o.account_id FROM punchcard.outcomes o
         WHERE o.job_id = ANY (p_job_ids) AND o.status <> 'succeeded')
        UNION ALL
        (SELECT DISTINCT a.id FROM punchcard.accounts a WHERE p_job_ids IS NULL AND a.available > 0 LIMIT 100)
        ORDER BY 1
    LOOP
        BEGIN
            PERFORM FROM punchcard.accounts a WHERE a.id = account ORDER BY a.share FOR NO KEY UPDATE;
            SELECT sum(a.available) INTO total FROM punchcard.accounts a WHERE a.id = account;
            IF total > 0 THEN
                PERFORM punchcard.move_credits('adjust', account, -total, 'returned:' || punchcard.uuid_v7(), NULL,
                                               'returned to the credit source');
                PERFORM punchcard.move_at_source(account, total);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE LOG 'punchcard: % credits of % wait to be returned: % %', total, account, SQLSTATE, SQLERRM;
        END;
    END LOOP;
END $$;

-- What an account has, at the source too.
CREATE FUNCTION punchcard.balance(p_account_id uuid) RETURNS TABLE (available bigint, held bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    there bigint := floor(punchcard.source_balance(p_account_id, false));
BEGIN
    RETURN QUERY
    SELECT coalesce(sum(b.available), 0)::bigint + coalesce(there, 0), coalesce(sum(b.held), 0)::bigint
    FROM punchcard.balances b WHERE b.account_id = p_account_id
    HAVING count(*) > 0 OR there IS NOT NULL;
END $$;

-- How to call the team's function that moves credits: its first argument that can be an account is the account, its
-- first number the amount; p_constants has the values of others by name; those that have defaults are left out.
CREATE FUNCTION punchcard.call_of_mover(p_function text, p_constants jsonb) RETURNS text
    LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    mover pg_catalog.pg_proc;
    argument record;
    arguments text := '';
    account boolean := false;
    amount boolean := false;
BEGIN
    SELECT * INTO mover FROM pg_catalog.pg_proc p
    WHERE p.oid = CASE WHEN p_function LIKE '%(%' THEN to_regprocedure(p_function)::oid ELSE to_regproc(p_function)::oid END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no function %s, or more than one: name its schema, and the types of its arguments.', p_function);
    END IF;
    FOR argument IN
        SELECT t.n, format_type(t.oid, NULL) AS type, nullif(mover.proargnames[t.n], '') AS name,
               t.n > mover.pronargs - mover.pronargdefaults AS has_default
        FROM unnest(mover.proargtypes::oid[]) WITH ORDINALITY AS t (oid, n) ORDER BY t.n
    LOOP
        arguments := arguments || CASE WHEN argument.n > 1 THEN ', ' ELSE '' END;
        IF p_constants ? argument.name THEN
            arguments := arguments || format('%L::%s', p_constants ->> argument.name, argument.type);
        ELSIF NOT account AND argument.type IN ('uuid', 'text', 'character varying') THEN
            account := true;
            arguments := arguments || format('$1::%s', argument.type);
        ELSIF NOT amount AND argument.type IN ('smallint', 'integer', 'bigint', 'numeric') THEN
            amount := true;
            arguments := arguments || format('$2::%s', argument.type);
        ELSIF argument.has_default THEN
            arguments := rtrim(arguments, ', ');
            EXIT;
        ELSE
            RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
                'The function %s wants %s, a %s: give it a constant.', p_function,
                coalesce(argument.name, 'a further argument'), argument.type);
        END IF;
    END LOOP;
    RETURN format('SELECT %s(%s)', mover.oid::regproc, arguments);
END $$;

-- Takes the team's credits as the source of all: p_function moves them, or else we update p_table. It is tried on one
-- account and rolled back, by what it does, not by what it answers; what does not do as it must is refused.
-- Answers what is worth a warning.
CREATE FUNCTION punchcard.use_credit_source(
    p_table text, p_account_column text, p_balance_column text, p_function text DEFAULT NULL,
    p_constants jsonb DEFAULT '{}', p_search_path text DEFAULT 'public') RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    balances oid := to_regclass(p_table);
    account_type text;
    source punchcard.credit_source;
    account uuid;
    before numeric;
    after numeric;
BEGIN
    SELECT format_type(a.atttypid, NULL) INTO account_type FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = balances AND a.attname = p_account_column
      AND a.atttypid IN ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype);
    IF account_type IS NULL OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = balances AND a.attname = p_balance_column
          AND a.atttypid IN ('integer'::regtype, 'bigint'::regtype, 'numeric'::regtype))
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no table %s with a column %s (uuid or text) and a column %s (integer, bigint or numeric); name its schema too.',
            p_table, p_account_column, p_balance_column);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = balances AND a.attname = p_account_column
        WHERE i.indrelid = balances AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
          AND i.indpred IS NULL)
    THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'An account may have two rows in %s: add a unique index on %s.', p_table, p_account_column);
    END IF;

    source.only_one := true;
    source.balances := balances::regclass::text;
    source.account_column := p_account_column;
    source.balance_column := p_balance_column;
    source.mover := p_function;
    source.search_path := p_search_path || ', pg_temp';  -- last: a temporary table shadows nothing
    source.read_balance := format('SELECT %I::numeric FROM %s WHERE %I = $1::%s', p_balance_column, source.balances,
                                  p_account_column, account_type);
    source.move_balance := CASE WHEN p_function IS NULL THEN
        format('UPDATE %s SET %I = %I + $2 WHERE %I = $1::%s', source.balances, p_balance_column, p_balance_column,
               p_account_column, account_type)
        ELSE punchcard.call_of_mover(p_function, p_constants) END;
    source.set_at := now();
    DELETE FROM punchcard.credit_source;
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
                WHEN after < 0 THEN 'it lets a balance fall below zero: add CHECK (' || quote_ident(p_balance_column) || ' >= 0)'
                WHEN after = before THEN 'it refuses an overdraft without an error: callers that do not look believe it'
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

SELECT punchcard.revoke_defaults();
