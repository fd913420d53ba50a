-- A UUIDv7 (RFC 9562 §5.7) from the database's clock; PostgreSQL has its own from version 18 on.
CREATE OR REPLACE FUNCTION punchcard.uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
        PLACING substring(pg_catalog.int8send((extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
