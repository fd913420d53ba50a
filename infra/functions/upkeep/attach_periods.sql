-- For `make_periods`: gives a table its new months, which are there, a spare table behind them, and, if it
-- had one, that one its end: it is the month before the first of them from now on. What stands in it for
-- later (jobs of old systems, whose ids tell any time) goes where it belongs. Who reads or writes the table
-- waits meanwhile: that is as long as it takes to look at what the spare table has.
CREATE OR REPLACE FUNCTION punchcard.attach_periods(p_table text, p_spare_from uuid, p_months timestamp[])
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Above all ids that tell a time: from the year 2109 on.
    no_time CONSTANT text := quote_literal('04000000-0000-0000-0000-000000000000');
    next_spare timestamp := p_months[cardinality(p_months)] + interval '1 month';
    first_month text := quote_literal(punchcard.first_id(p_months[1] AT TIME ZONE 'UTC'));
    key text;
    old text;
    place record;
BEGIN
    SELECT a.attname INTO STRICT key
    FROM pg_catalog.pg_partitioned_table t
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
    WHERE t.partrelid = ('punchcard.' || quote_ident(p_table))::regclass;
    IF p_spare_from IS NOT NULL THEN
        SELECT p.name INTO STRICT old FROM punchcard.periods p WHERE p.of_table = p_table AND p.is_spare;
        EXECUTE format('ALTER TABLE punchcard.%I DETACH PARTITION punchcard.%I', p_table, old);
        EXECUTE format('ALTER TABLE punchcard.%I RENAME TO %I', old, replace(old, '_from_', '_'));
        old := replace(old, '_from_', '_');
    END IF;
    FOR place IN
        SELECT to_char(m, 'YYYY_MM') AS name,
               quote_literal(punchcard.first_id(m AT TIME ZONE 'UTC')) AS first,
               quote_literal(punchcard.first_id((m + interval '1 month') AT TIME ZONE 'UTC')) AS last
        FROM unnest(p_months) m
        UNION ALL
        SELECT 'from_' || to_char(next_spare, 'YYYY_MM'),
               quote_literal(punchcard.first_id(next_spare AT TIME ZONE 'UTC')), no_time
        UNION ALL
        SELECT e.name, e.first, e.last
        FROM (VALUES ('before_' || to_char(p_months[1], 'YYYY_MM'), 'MINVALUE', first_month),
                     ('of_no_time', no_time, 'MAXVALUE')) e (name, first, last)
        WHERE p_spare_from IS NULL
    LOOP
        EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I '
                       'FOR VALUES FROM (%s) TO (%s)',
                       p_table, p_table || '_' || place.name, place.first, place.last);
    END LOOP;
    IF old IS NOT NULL THEN
        EXECUTE format('WITH later AS (DELETE FROM punchcard.%I WHERE %I >= %s RETURNING *) '
                       'INSERT INTO punchcard.%I SELECT * FROM later', old, key, first_month, p_table);
        EXECUTE format('ALTER TABLE punchcard.%I ATTACH PARTITION punchcard.%I '
                       'FOR VALUES FROM (%L) TO (%s)', p_table, old, p_spare_from, first_month);
    END IF;
END $$;
