-- The least id that `uuid_v7` makes at a time: ids of jobs that were bought before are less.
CREATE OR REPLACE FUNCTION punchcard.first_id(p_at timestamptz) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    micros bigint := extract(epoch FROM p_at) * 1000000;
BEGIN
    -- x 4096 / 1000, in two parts: one would be too large from the year 2540 on.
    RETURN overlay(lpad(to_hex(micros / 125 * 512 + micros % 125 * 512 / 125), 15, '0')
                   PLACING '7' FROM 13 FOR 0)
           || '0000000000000000';
END $$;
