-- The least id that `uuid_v7` makes at a time: ids of jobs that were bought before are less.
CREATE OR REPLACE FUNCTION punchcard.first_id(p_at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT (overlay(lpad(to_hex((extract(epoch FROM p_at) * 1000000)::bigint * 512 / 125), 15, '0')
                    PLACING '7' FROM 13 FOR 0)
            || '0000000000000000')::uuid
$$;
