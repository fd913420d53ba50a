-- How the table ends by name that takes the place of all that was before p_end, as `wanted_periods` has it.
CREATE OR REPLACE FUNCTION punchcard.before_name(p_end uuid) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '_before_' || to_char(punchcard.uuid_time(p_end) AT TIME ZONE 'UTC', 'YYYY_MM')
$$;
