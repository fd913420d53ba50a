-- For `make_periods`: gives a table its new months, whose tables are there, and moves its spare table on
-- behind them; where months are missing that have begun, the spare table becomes theirs, and there is a new
-- one. What stands in it for another time (jobs of old systems, whose ids tell any) goes where it belongs.
-- Who reads or writes the table waits meanwhile: that is as long as it takes to look at what the spare table
-- has.
CREATE OR REPLACE FUNCTION punchcard.attach_periods(
    p_table text, p_spare text, p_spare_from uuid, p_months timestamp[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Above all ids that tell a time: from the year 2109 on.
    no_time CONSTANT uuid := '04000000-0000-0000-0000-000000000000';
    first_month uuid := punchcard.first_id(p_months[1] AT TIME ZONE 'UTC');
    behind timestamp := p_months[cardinality(p_months)] + interval '1 month';
    behind_id uuid := punchcard.first_id(behind AT TIME ZONE 'UTC');
    spare text := p_table || '_from_' || to_char(behind, 'YYYY_MM');
    becomes_month boolean := p_spare_from < first_month;
    old text;
    key text;
    place record;
BEGIN
    IF p_spare IS NOT NULL THEN
        SELECT a.attname INTO STRICT key
        FROM pg_catalog.pg_partitioned_table t
        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
        WHERE t.partrelid = ('punchcard.' || quote_ident(p_table))::regclass;
        old := CASE WHEN becomes_month THEN replace(p_spare, '_from_', '_') ELSE spare END;
        EXECUTE format('ALTER TABLE punchcard.%I DETACH PARTITION punchcard.%I', p_table, p_spare);
        EXECUTE format('ALTER TABLE punchcard.%I RENAME TO %I', p_spare, old);
    END IF;
    FOR place IN
        SELECT to_char(m, 'YYYY_MM') AS name,
               quote_literal(punchcard.first_id(m AT TIME ZONE 'UTC')) AS first,
               quote_literal(punchcard.first_id((m + interval '1 month') AT TIME ZONE 'UTC')) AS last
        FROM unnest(p_months) m
        UNION ALL
        SELECT 'from_' || to_char(behind, 'YYYY_MM'), quote_literal(behind_id), quote_literal(no_time)
        WHERE p_spare IS NULL OR becomes_month
        UNION ALL
        SELECT e.name, e.first, e.last
        FROM (VALUES ('before_' || to_char(p_months[1], 'YYYY_MM'), 'MINVALUE', quote_literal(first_month)),
                     ('of_no_time', quote_literal(no_time), 'MAXVALUE')) e (name, first, last)
        WHERE p_spare IS NULL
    LOOP
        EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I FOR VALUES FROM (%s) TO (%s)',
                       p_table, p_table || '_' || place.name, place.first, place.last);
    END LOOP;
    IF p_spare IS NOT NULL THEN
        EXECUTE format('WITH others AS (DELETE FROM punchcard.%I WHERE %I %s %L RETURNING *) '
                       'INSERT INTO punchcard.%I SELECT * FROM others', old, key,
                       CASE WHEN becomes_month THEN '>=' ELSE '<' END,
                       CASE WHEN becomes_month THEN first_month ELSE behind_id END, p_table);
        EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I FOR VALUES FROM (%L) TO (%L)',
                       p_table, old, CASE WHEN becomes_month THEN p_spare_from ELSE behind_id END,
                       CASE WHEN becomes_month THEN first_month ELSE no_time END);
    END IF;
END $$;
