-- For `make_periods`: the tables that one kept by month needs, from where its spare one begins (NULL: it has
-- none yet) to behind p_last_month, in their order. No first id: from the least; no end: to the last. What is
-- not new is the spare table, by another name. As a rule it only moves on behind the months; but where months
-- have begun that nobody made, what was bought in them is in it: then it becomes the month of it, or of them,
-- and there is a new one.
CREATE OR REPLACE FUNCTION punchcard.wanted_periods(
    p_table text, p_spare_from uuid, p_this_month timestamp, p_last_month timestamp)
    RETURNS TABLE (name text, first_id uuid, end_id uuid, is_new boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH spare AS (
        SELECT date_trunc('month', punchcard.uuid_time(p_spare_from) AT TIME ZONE 'UTC') AS month
    ), months AS (
        SELECT s.month AS spare_month, p_last_month + interval '1 month' AS behind,
               CASE WHEN s.month IS NULL THEN p_this_month
                    ELSE greatest(s.month, p_this_month + interval '1 month') END AS first
        FROM spare s
    ), wanted AS (
        SELECT 'before_' || to_char(m.first, 'YYYY_MM') AS name, NULL::uuid AS first_id,
               punchcard.first_id(m.first AT TIME ZONE 'UTC') AS end_id, true AS is_new
        FROM months m WHERE m.spare_month IS NULL
        UNION ALL
        SELECT to_char(m.spare_month, 'YYYY_MM'), p_spare_from,
               punchcard.first_id(m.first AT TIME ZONE 'UTC'), false
        FROM months m WHERE m.spare_month < m.first
        UNION ALL
        SELECT to_char(g.month, 'YYYY_MM'), punchcard.first_id(g.month AT TIME ZONE 'UTC'),
               punchcard.first_id((g.month + interval '1 month') AT TIME ZONE 'UTC'), true
        FROM months m, generate_series(m.first, p_last_month, interval '1 month') AS g (month)
        UNION ALL
        SELECT 'from_' || to_char(m.behind, 'YYYY_MM'), punchcard.first_id(m.behind AT TIME ZONE 'UTC'),
               punchcard.no_time(), coalesce(m.spare_month < m.first, true)
        FROM months m
        UNION ALL
        SELECT 'of_no_time', punchcard.no_time(), NULL, true
        FROM months m WHERE m.spare_month IS NULL
    )
    SELECT p_table || '_' || w.name, w.first_id, w.end_id, w.is_new
    FROM wanted w ORDER BY w.first_id NULLS FIRST
$$;
