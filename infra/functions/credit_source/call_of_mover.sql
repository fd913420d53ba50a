-- How to call the team's function that moves credits: its first argument that can be an account is the
-- account, its first number the amount; p_constants has the values of others by name; those that have
-- defaults are left out.
CREATE OR REPLACE FUNCTION punchcard.call_of_mover(p_function text, p_constants jsonb) RETURNS text
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
    WHERE p.oid = CASE WHEN p_function LIKE '%(%' THEN to_regprocedure(p_function)::oid
                       ELSE to_regproc(p_function)::oid END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invalid_credit_source' USING ERRCODE = 'PT422', DETAIL = format(
            'There is no function %s, or more than one: name its schema, and the types of its arguments.',
            p_function);
    END IF;
    -- Of its input arguments: a function may have OUT ones between them.
    SELECT array_agg(a.name ORDER BY a.n) INTO names
    FROM unnest(mover.proargnames, mover.proargmodes) WITH ORDINALITY AS a (name, mode, n)
    WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v');
    SELECT k INTO unknown FROM jsonb_object_keys(p_constants) k
    WHERE k <> ALL (coalesce(names, '{}')) LIMIT 1;
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
