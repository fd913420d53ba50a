-- Of the tables that are kept by month, those whose jobs all have lesser ids than p_end, with the least id
-- behind them.
CREATE OR REPLACE FUNCTION punchcard.months_before(p_end uuid)
    RETURNS TABLE (of_table text, name text, end_id uuid)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.of_table, p.name, p.end_id
    FROM (SELECT p.of_table, p.name,
                 lead(p.first_id) OVER (PARTITION BY p.of_table ORDER BY p.first_id NULLS FIRST) AS end_id
          FROM punchcard.periods p) p
    WHERE p.end_id <= p_end
    ORDER BY p.of_table, p.end_id
$$;
