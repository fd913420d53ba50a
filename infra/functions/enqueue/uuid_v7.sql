-- A UUIDv7 (RFC 9562 §5.7) of a time, to its microsecond, which the 12 bits after the milliseconds have
-- (§6.2, method 3), as PostgreSQL's own has from version 18 on. Without a time: the database's clock. One
-- expression, which PostgreSQL puts in place of the call: the version's digit goes between the time's first
-- twelve digits and its last three.
CREATE OR REPLACE FUNCTION punchcard.uuid_v7(p_at timestamptz DEFAULT clock_timestamp()) RETURNS uuid
    LANGUAGE sql VOLATILE AS $$
    SELECT (overlay(pg_catalog.lpad(
                        pg_catalog.to_hex((extract(epoch FROM p_at) * 1000000)::bigint * 512 / 125), 15, '0')
                    PLACING '7' FROM 13 FOR 0)
            || substring(pg_catalog.gen_random_uuid()::text FROM 20))::uuid
$$;
