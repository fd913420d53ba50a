-- The least id that `uuid_v7` makes at a time: ids of jobs that were bought before are less.
CREATE OR REPLACE FUNCTION punchcard.first_id(p_at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    -- x 4096 / 1000, in two parts: one would be too large from the year 2540 on.
    SELECT (overlay(lpad(to_hex(m.micros / 125 * 512 + m.micros % 125 * 512 / 125), 15, '0')
                    PLACING '7' FROM 13 FOR 0)
            || '0000000000000000')::uuid
    FROM (SELECT (extract(epoch FROM p_at) * 1000000)::bigint AS micros) m
$$;
