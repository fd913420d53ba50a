-- When a UUIDv7 of `uuid_v7` was made, to the microsecond. Of any other UUID, a time by which it sorts.
CREATE OR REPLACE FUNCTION punchcard.uuid_time(p_id uuid) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT timestamptz 'epoch' + ((b.bits >> 16) & 281474976710655) / 1000 * interval '1 second'
           + (((b.bits >> 16) & 281474976710655) % 1000 * 1000 + ((b.bits & 4095) * 1000 + 4095) / 4096)
             * interval '1 microsecond'
    FROM (SELECT ('x' || translate(left(p_id::text, 18), '-', ''))::bit(64)::bigint AS bits) b
$$;
