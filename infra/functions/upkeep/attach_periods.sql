-- For `make_periods`: puts a table's new months, whose tables are there, in their places, and its spare table
-- in its next one (`wanted_periods`). Who reads or writes the table waits meanwhile: that is as long as it
-- takes to look at what the spare table has.
CREATE OR REPLACE FUNCTION punchcard.attach_periods(
    p_table text, p_spare text, p_spare_from uuid, p_this_month timestamp, p_last_month timestamp)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    IF p_spare IS NOT NULL THEN
        EXECUTE format('ALTER TABLE punchcard.%I DETACH PARTITION punchcard.%I', p_table, p_spare);
        PERFORM punchcard.empty_spare(p_table, p_spare, p_spare_from, p_this_month, p_last_month);
    END IF;
    FOR wanted IN
        SELECT w.name, w.is_new, coalesce(quote_literal(w.first_id), 'MINVALUE') AS first_id,
               coalesce(quote_literal(w.end_id), 'MAXVALUE') AS end_id
        FROM punchcard.wanted_periods(p_table, p_spare_from, p_this_month, p_last_month) w
    LOOP
        IF NOT wanted.is_new THEN
            EXECUTE format('ALTER TABLE punchcard.%I RENAME TO %I', p_spare, wanted.name);
        END IF;
        EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I FOR VALUES FROM (%s) TO (%s)',
                       p_table, wanted.name, wanted.first_id, wanted.end_id);
    END LOOP;
END $$;
