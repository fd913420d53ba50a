-- Makes the months to come of each table that is kept by month (ADR 19), a step at a time, each a short
-- transaction; answers whether there is another step. At least p_least months are there beyond this one, and
-- where they are fewer, p_ahead are made: first the tables, for which nobody waits, then, table by table,
-- their places (`attach_periods`). Once nothing is left to do it costs a look at the catalog.
CREATE OR REPLACE FUNCTION punchcard.make_periods(p_least integer DEFAULT 4, p_ahead integer DEFAULT 6)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    enough uuid := punchcard.first_id((this_month + make_interval(months => p_least + 1)) AT TIME ZONE 'UTC');
    kept record;
    months timestamp[];
    wanted text[];
    name text;
    made boolean := false;
BEGIN
    -- One makes them at a time; whoever comes second need not.
    IF NOT pg_try_advisory_xact_lock(7046029254386353132) THEN
        RETURN false;
    END IF;
    FOR kept IN
        SELECT c.relname AS name, p.first_id AS spare_from
        FROM pg_catalog.pg_class c LEFT JOIN punchcard.periods p ON p.of_table = c.relname AND p.is_spare
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'p'
          AND coalesce(p.first_id < enough, true)
        ORDER BY c.relname
    LOOP
        -- The spare table becomes its own first month, or the one of all months that nobody made in time.
        months := ARRAY(
            SELECT m FROM generate_series(
                CASE WHEN kept.spare_from IS NULL THEN this_month
                     ELSE interval '1 month' + greatest(this_month, date_trunc(
                         'month', punchcard.uuid_time(kept.spare_from) AT TIME ZONE 'UTC')) END,
                this_month + make_interval(months => p_ahead), interval '1 month') m);
        wanted := ARRAY(SELECT to_char(m, 'YYYY_MM') FROM unnest(months) m)
            || ('from_' || to_char(this_month + make_interval(months => p_ahead + 1), 'YYYY_MM'));
        IF kept.spare_from IS NULL THEN
            wanted := wanted || ('before_' || to_char(this_month, 'YYYY_MM')) || 'of_no_time'::text;
        END IF;
        FOREACH name IN ARRAY wanted LOOP
            name := kept.name || '_' || name;
            CONTINUE WHEN to_regclass('punchcard.' || quote_ident(name)) IS NOT NULL;
            EXECUTE format(
                'CREATE TABLE punchcard.%I (LIKE punchcard.%I INCLUDING ALL) USING heap '
                'WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01, '
                'autovacuum_analyze_scale_factor = 0.01)', name, kept.name);
            EXECUTE format('REVOKE ALL ON punchcard.%I FROM %s', name, punchcard.everybody_else());
            made := true;
        END LOOP;
        IF made THEN
            PERFORM punchcard.set_policies();
        ELSE
            PERFORM punchcard.attach_periods(kept.name, kept.spare_from, months);
            RETURN true;
        END IF;
    END LOOP;
    RETURN made;
END $$;
