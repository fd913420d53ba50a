-- Makes the months to come of each table that is kept by month (ADR 19), a table at a time, each a short
-- transaction; answers whether there may be another. At least p_least months are there beyond this one, and
-- where they are fewer, p_ahead are made: first their tables, for which nobody waits, then their places
-- (`attach_periods`). What stops one table (somebody who reads it for long, a table of a name that is needed)
-- stops no other, and is raised once it is all that is left. With nothing to do it costs a look at the
-- catalog.
CREATE OR REPLACE FUNCTION punchcard.make_periods(p_least integer DEFAULT 4, p_ahead integer DEFAULT 6)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    last_month timestamp := this_month + make_interval(months => greatest(p_ahead, p_least + 2));
    enough uuid := punchcard.first_id((this_month + make_interval(months => p_least + 1)) AT TIME ZONE 'UTC');
    kept record;
    name text;
    stopped text;
    code text;
BEGIN
    -- One makes them at a time.
    PERFORM FROM punchcard.upkeep u WHERE u.task = 'periods' FOR NO KEY UPDATE;
    -- First what has no spare table, and refuses purchases; last what somebody is at: whoever comes while we
    -- wait for them waits, too.
    FOR kept IN
        SELECT c.relname AS name, p.name AS spare, p.first_id AS spare_from
        FROM pg_catalog.pg_class c LEFT JOIN punchcard.periods p ON p.of_table = c.relname AND p.is_spare
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'p'
          AND coalesce(p.first_id < enough, true)
        ORDER BY p.name IS NOT NULL,
                 EXISTS (SELECT FROM pg_catalog.pg_locks l
                         WHERE l.relation = c.oid AND l.pid IS DISTINCT FROM pg_backend_pid()),
                 c.relname
    LOOP
        BEGIN
            FOR name IN
                SELECT w.name
                FROM punchcard.wanted_periods(kept.name, kept.spare_from, this_month, last_month) w
                WHERE w.is_new
            LOOP
                PERFORM punchcard.make_period(kept.name, name);
            END LOOP;
            PERFORM punchcard.set_policies();
            PERFORM punchcard.attach_periods(kept.name, kept.spare, kept.spare_from, this_month, last_month);
            RETURN true;
        EXCEPTION WHEN OTHERS THEN
            stopped := concat_ws('; ', stopped, format('the months of %s: %s', kept.name, SQLERRM));
            -- Whoever waits for a lock goes away by themselves: the other is for somebody to mend.
            code := coalesce(nullif(code, '55P03'), SQLSTATE);
        END;
    END LOOP;
    IF code IS NOT NULL THEN
        RAISE EXCEPTION '%', stopped USING ERRCODE = code;
    END IF;
    RETURN false;
END $$;
