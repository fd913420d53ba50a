-- Makes the months to come of each table that is kept by month (ADR 19), a table at a time, each a short
-- transaction; answers whether there may be another. At least p_least months are there beyond this one, and
-- where they are fewer, p_ahead are made: first their tables, for which nobody waits, then their places
-- (`attach_periods`). Once nothing is left to do it costs a look at the catalog.
CREATE OR REPLACE FUNCTION punchcard.make_periods(p_least integer DEFAULT 4, p_ahead integer DEFAULT 6)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    last_month timestamp := this_month + make_interval(months => greatest(p_ahead, p_least + 2));
    enough uuid := punchcard.first_id((this_month + make_interval(months => p_least + 1)) AT TIME ZONE 'UTC');
    kept record;
    months timestamp[];
    wanted text[];
    name text;
BEGIN
    -- One makes them at a time.
    PERFORM FROM punchcard.upkeep u WHERE u.task = 'periods' FOR NO KEY UPDATE;
    SELECT c.relname AS name, p.name AS spare, p.first_id AS spare_from INTO kept
    FROM pg_catalog.pg_class c LEFT JOIN punchcard.periods p ON p.of_table = c.relname AND p.is_spare
    WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'p'
      AND coalesce(p.first_id < enough, true)
    ORDER BY c.relname LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- What was bought while nobody made months is in the spare table: then that one becomes the month of it,
    -- or of them, and a new one is made. As a rule it is only moved on.
    months := ARRAY(
        SELECT m FROM generate_series(
            CASE WHEN kept.spare_from IS NULL THEN this_month
                 ELSE greatest(
                     this_month + interval '1 month',
                     date_trunc('month', punchcard.uuid_time(kept.spare_from) AT TIME ZONE 'UTC')) END,
            last_month, interval '1 month') m);
    wanted := ARRAY(SELECT to_char(m, 'YYYY_MM') FROM unnest(months) m);
    IF kept.spare_from IS NULL THEN
        wanted := wanted || ('before_' || to_char(this_month, 'YYYY_MM')) || 'of_no_time'::text;
    END IF;
    IF kept.spare_from IS NULL OR kept.spare_from < punchcard.first_id(months[1] AT TIME ZONE 'UTC') THEN
        wanted := wanted || ('from_' || to_char(last_month + interval '1 month', 'YYYY_MM'));
    END IF;
    FOREACH name IN ARRAY wanted LOOP
        PERFORM punchcard.make_period(kept.name, kept.name || '_' || name);
    END LOOP;
    PERFORM punchcard.set_policies();
    PERFORM punchcard.attach_periods(kept.name, kept.spare, kept.spare_from, months);
    RETURN true;
END $$;
