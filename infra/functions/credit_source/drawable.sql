-- How many whole credits can be drawn of a balance at the source: none below 0, and no more than an account
-- may hold.
CREATE OR REPLACE FUNCTION punchcard.drawable(p_balance numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(greatest(floor(p_balance), 0), 1000000000000000000)::bigint
$$;
