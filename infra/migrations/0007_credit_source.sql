-- Credits that the team keeps in a table of its own (ADR 10). A purchase draws what it lacks from there, in the statement
-- that holds it; what is released is `available` at once, where the next purchase finds it first, and each tick returns
-- what is left. Punchcard's own books stay as they are: credits come in by a grant and leave by an adjustment.

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

-- The caller is told no SQL: the operator finds in the log what the team's table or function said.
CREATE FUNCTION punchcard.source_failed(p_account_id uuid, p_state text, p_message text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE LOG 'punchcard: the credit source failed for %: % %', p_account_id, p_state, p_message;
    RAISE EXCEPTION 'credit_source_failed' USING ERRCODE = 'PT503', DETAIL = 'The credits could not be moved.';
END $$;

-- An account's balance at the source, its row locked if p_lock; NULL if it has none. One that is no number
-- fails.
CREATE FUNCTION punchcard.source_balance(p_account_id uuid, p_lock boolean) RETURNS numeric
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

-- Whether the source knows an account, and can say what it has. One that it cannot say keeps no other from being asked for.
CREATE FUNCTION punchcard.source_knows(p_account_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN punchcard.source_balance(p_account_id, false) IS NOT NULL;
EXCEPTION WHEN SQLSTATE 'PT503' THEN
    RETURN false;
END $$;

-- Moves credits at the source, and looks whether they moved: an existing function may clamp, report an error as a row,
-- or do nothing. Then nothing has happened: this raises PT503.
CREATE FUNCTION punchcard.move_at_source(p_account_id uuid, p_amount bigint) RETURNS void
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

-- How many whole credits can be drawn of a balance at the source: none below 0, and no more than an account
-- may hold.
CREATE FUNCTION punchcard.drawable(p_balance numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(greatest(floor(p_balance), 0), 1000000000000000000)::bigint
$$;

-- Makes p_amount available, drawn from the source as far as it is missing. Answers what there is in all; moves nothing if
-- that is less.
CREATE FUNCTION punchcard.draw_credits(p_account_id uuid, p_amount bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
    there := coalesce(punchcard.drawable(punchcard.source_balance(p_account_id, true)), 0);
    IF total + there >= p_amount THEN
        PERFORM punchcard.move_at_source(p_account_id, total - p_amount);
        PERFORM punchcard.move_credits('grant', p_account_id, p_amount - total, 'drawn:' || punchcard.uuid_v7(), NULL,
                                       'drawn from the credit source');
        RETURN p_amount;
    END IF;
    RETURN total + there;
END $$;

-- Returns what is available to the source, for up to 50 accounts that it knows; answers how many were returned. What it
-- does not take now goes on waiting: a tick calls this in a statement of its own, and holds nothing up by it.
CREATE FUNCTION punchcard.return_credits() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    began timestamptz := clock_timestamp();
    begun timestamptz;
    returned bigint := 0;
    moved integer;
    account uuid;
    total bigint;
BEGIN
    FOR account IN
        -- Any of them, so that accounts that stay behind keep no other waiting; in order, so that none deadlock.
        SELECT r.id FROM (
            SELECT w.id FROM (SELECT DISTINCT a.id FROM punchcard.accounts a WHERE a.available > 0) w
            WHERE punchcard.source_knows(w.id)
            ORDER BY random() LIMIT 50) r
        ORDER BY r.id
    LOOP
        EXIT WHEN clock_timestamp() > began + interval '5 seconds';
        moved := 0;
        begun := clock_timestamp();
        BEGIN
            SET CONSTRAINTS ALL DEFERRED;
            PERFORM FROM punchcard.accounts a WHERE a.id = account ORDER BY a.share FOR NO KEY UPDATE;
            -- As much as one movement may: the rest goes with a later tick.
            SELECT least(sum(a.available), 1000000000000000) INTO total
            FROM punchcard.accounts a WHERE a.id = account;
            IF total > 0 THEN
                PERFORM punchcard.move_credits('adjust', account, -total, 'returned:' || punchcard.uuid_v7(), NULL,
                                               'returned to the credit source');
                PERFORM punchcard.move_at_source(account, total);
                SET CONSTRAINTS ALL IMMEDIATE;
                moved := 1;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
            RAISE LOG 'punchcard: % credits of % wait to be returned: % %', total, account, SQLSTATE, SQLERRM;
            moved := 0;
            -- The time-out of this statement is over, and bounds nothing any more.
            EXIT WHEN SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second';
        END;
        returned := returned + moved;
    END LOOP;
    RETURN returned;
END $$;

-- What an account has, at the source too, if that answers.
CREATE FUNCTION punchcard.balance(p_account_id uuid) RETURNS TABLE (available bigint, held bigint)
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

-- For the doctor: whether the source can be read, and what waits; no row without a source.
CREATE FUNCTION punchcard.source_health() RETURNS TABLE (ok boolean, finding text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source punchcard.credit_source;
    waiting bigint;
BEGIN
    SELECT * INTO source FROM punchcard.credit_source;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(sum(a.available), 0)::bigint INTO waiting FROM punchcard.accounts a;
    finding := format('credits come from %s; %s wait to be returned', source.balances, waiting);
    ok := true;
    BEGIN
        PERFORM punchcard.source_balance('00000000-0000-0000-0000-000000000000', false);
        IF source.mover IS NOT NULL
            AND (CASE WHEN source.mover LIKE '%(%' THEN to_regprocedure(source.mover)::oid
                 ELSE to_regproc(source.mover)::oid END) IS NULL
        THEN
            RAISE EXCEPTION USING ERRCODE = 'PT503';
        END IF;
    EXCEPTION WHEN SQLSTATE 'PT503' THEN
        ok := false;
        finding := format('the credit source %s is broken: its table or function is gone, or not ours to use; %s credits wait',
                        source.balances, waiting);
    END;
    RETURN NEXT;
END $$;

-- How to call the team's function that moves credits: its first argument that can be an account is the account, its
-- first number the amount; p_constants has the values of others by name; those that have defaults are left out.
CREATE FUNCTION punchcard.call_of_mover(p_function text, p_constants jsonb) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mover pg_catalog.pg_proc;
    names text[];
    unknown text;
    argument record;
    arguments text[] := '{}';
    value text;
    account boolean := false;
    amount boolean := false;
BEGIN
    SELECT * INTO mover FROM pg_catalog.pg_proc p
    WHERE p.oid = CASE WHEN p_function LIKE '%(%' THEN to_regprocedure(p_function)::oid ELSE to_regproc(p_function)::oid END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no function %s, or more than one: name its schema, and the types of its arguments.', p_function);
    END IF;
    -- Of its input arguments: a function may have OUT ones between them.
    SELECT array_agg(a.name ORDER BY a.n) INTO names
    FROM unnest(mover.proargnames, mover.proargmodes) WITH ORDINALITY AS a (name, mode, n)
    WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v');
    SELECT k INTO unknown FROM jsonb_object_keys(p_constants) k WHERE k <> ALL (coalesce(names, '{}')) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'The function %s has no argument %s.', p_function, unknown);
    END IF;
    FOR argument IN
        SELECT t.oid, format_type(t.oid, NULL) AS type, nullif(names[t.n], '') AS name,
               t.n > mover.pronargs - mover.pronargdefaults AS has_default
        FROM unnest(mover.proargtypes::oid[]) WITH ORDINALITY AS t (oid, n) ORDER BY t.n
    LOOP
        IF p_constants ? argument.name THEN
            value := format('%L::%s', p_constants ->> argument.name, argument.type);
        ELSIF NOT account AND argument.oid IN ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype) THEN
            account := true;
            value := '$1::' || argument.type;
        ELSIF NOT amount AND argument.oid IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype,
                                               'numeric'::regtype) THEN
            amount := true;
            value := '$2::' || argument.type;
        ELSIF argument.has_default AND argument.name IS NOT NULL THEN
            CONTINUE;
        ELSE
            RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
                'The function %s wants %s, a %s: give it a constant.', p_function,
                coalesce(argument.name, 'a further argument'), argument.type);
        END IF;
        arguments := arguments || CASE WHEN argument.name IS NULL THEN value
                                       ELSE format('%I => %s', argument.name, value) END;
    END LOOP;
    RETURN format('SELECT %s(%s)', mover.oid::regproc, array_to_string(arguments, ', '));
END $$;

-- Takes the team's credits as the source of all: p_function moves them, or else we update p_table. It is tried on one
-- account and rolled back, by what it does, not by what it answers; what does not do as it must is refused.
-- So is a change while credits are in Punchcard's own accounts, unless p_force: they would move there too.
-- Answers what is worth a warning.
CREATE FUNCTION punchcard.use_credit_source(
    p_table text, p_account_column text, p_balance_column text, p_function text DEFAULT NULL,
    p_constants jsonb DEFAULT '{}', p_search_path text DEFAULT 'public', p_force boolean DEFAULT false) RETURNS SETOF text
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
            'There is no table %s with a column %s (uuid or text) and a column %s (integer, bigint or numeric); name its schema too.',
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
            'Punchcard''s own accounts have %s credits, which would go to %s as they come free: adjust them away first, or force it.',
            before, p_table);
    END IF;
    IF p_search_path ~* 'pg_temp' THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422',
            DETAIL = 'The search_path must not name pg_temp: it is added, last, so that a temporary table shadows nothing.';
    END IF;
    source.only_one := true;
    source.balances := team_table::regclass::text;
    source.account_column := p_account_column;
    source.balance_column := p_balance_column;
    source.mover := p_function;
    source.search_path := p_search_path || ', pg_temp';
    source.read_balance := format('SELECT %I::numeric FROM %s WHERE %I = $1::%s', p_balance_column, source.balances,
                                  p_account_column, account_type);
    source.move_balance := CASE WHEN p_function IS NULL THEN
        -- Triggers of the team's run under its path; what is written here means PostgreSQL's own operators all the same.
        format('UPDATE %s SET %I = %I OPERATOR(pg_catalog.+) $2 WHERE %I OPERATOR(pg_catalog.=) $1::%s', source.balances,
               p_balance_column, p_balance_column, p_account_column, account_type)
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
