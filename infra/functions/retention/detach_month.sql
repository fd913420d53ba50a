-- For `apply_retention`: takes a month, and all before it, out of the next table that is kept by month; false
-- if there is none left to take. In its place comes an empty one, which takes nothing in: for whoever asks
-- for an old id. Who reads or writes the table waits meanwhile, for a few milliseconds.
CREATE OR REPLACE FUNCTION punchcard.detach_month(p_end uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept record;
    old record;
BEGIN
    -- Messages first: none is sent again then. A job that is there is never without what else belongs to it.
    -- A table's months may be longer than those of others, if nobody made them in time.
    SELECT m.of_table AS name, m.of_table || punchcard.before_name(m.end_id) AS before, m.end_id INTO kept
    FROM (SELECT m.of_table, max(m.end_id::text)::uuid AS end_id, array_agg(m.name) AS names
          FROM punchcard.months_before(p_end) m GROUP BY m.of_table) m
    WHERE m.names <> ARRAY[m.of_table || punchcard.before_name(m.end_id)]
    ORDER BY array_position(ARRAY['deliveries', 'jobs'], m.of_table), m.of_table LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM punchcard.make_period(kept.name, kept.before);
    EXECUTE format('ALTER TABLE punchcard.%I ADD CONSTRAINT past_its_retention CHECK (false)', kept.before);
    PERFORM punchcard.set_policies();
    -- Who reads these alone is waited for before others have to wait for us.
    FOR old IN SELECT m.name FROM punchcard.months_before(p_end) m WHERE m.of_table = kept.name LOOP
        EXECUTE format('LOCK TABLE ONLY punchcard.%I IN ACCESS EXCLUSIVE MODE', old.name);
    END LOOP;
    FOR old IN SELECT m.name FROM punchcard.months_before(p_end) m WHERE m.of_table = kept.name LOOP
        EXECUTE format('ALTER TABLE punchcard.%I DETACH PARTITION punchcard.%I', kept.name, old.name);
        EXECUTE format('ALTER TABLE punchcard.%I RENAME TO %I', old.name, old.name || '_gone');
    END LOOP;
    EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I '
                   'FOR VALUES FROM (MINVALUE) TO (%L)', kept.name, kept.before, kept.end_id);
    RETURN true;
END $$;
