-- For `attach_periods`: moves what the spare table has of the new tables' time to these, in one statement, so
-- that it is looked through once. None of them is attached yet, so that none has the triggers that tell
-- others of a row: of what moves they have heard.
CREATE OR REPLACE FUNCTION punchcard.empty_spare(
    p_table text, p_spare text, p_spare_from uuid, p_this_month timestamp, p_last_month timestamp)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key text;
    moves text;
    moved text;
    all_moved boolean;
BEGIN
    SELECT a.attname INTO STRICT key
    FROM pg_catalog.pg_partitioned_table t
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
    WHERE t.partrelid = ('punchcard.' || quote_ident(p_table))::regclass;
    SELECT string_agg(format(
               CASE WHEN w.is_new THEN '%1$I AS (INSERT INTO punchcard.%1$I SELECT * FROM others '
                                       'WHERE %3$I >= %4$L AND %3$I < %5$L RETURNING true)'
                    ELSE 'others AS (DELETE FROM punchcard.%2$I '
                         'WHERE %3$I < %4$L OR %3$I >= %5$L RETURNING *)' END,
               w.name, p_spare, key, w.first_id, w.end_id), ', ' ORDER BY w.is_new),
           string_agg(format('(SELECT count(*) FROM %I)', w.name), ' + ') FILTER (WHERE w.is_new)
    INTO STRICT moves, moved
    FROM punchcard.wanted_periods(p_table, p_spare_from, p_this_month, p_last_month) w;
    EXECUTE format('WITH %s SELECT count(*) = %s FROM others', moves, moved) INTO STRICT all_moved;
    IF all_moved IS NOT TRUE THEN
        RAISE EXCEPTION '% has rows that are of no new table''s time', p_spare;
    END IF;
END $$;
