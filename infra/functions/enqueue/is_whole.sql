-- Whether a JSON value is a whole number within bounds, written as one: workers do not read 10.0.
CREATE OR REPLACE FUNCTION punchcard.is_whole(p_value jsonb, p_least numeric, p_most numeric) RETURNS boolean
    LANGUAGE sql AS $$
    SELECT CASE WHEN p_value::text ~ '^[0-9]+$' THEN p_value::numeric BETWEEN p_least AND p_most
                ELSE false END
$$;
