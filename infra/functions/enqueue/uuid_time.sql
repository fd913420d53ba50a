-- When a UUIDv7 of `uuid_v7` was made, to the microsecond. Of any other UUID, a time by which it sorts:
-- the first microsecond of its millisecond, or the last, as its version digit is below seven or above.
CREATE OR REPLACE FUNCTION punchcard.uuid_time(p_id uuid) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bits bigint := ('x' || translate(left(p_id::text, 18), '-', ''))::bit(64)::bigint;
    millis bigint := (bits >> 16) & 281474976710655;
BEGIN
    RETURN timestamptz 'epoch' + millis / 1000 * interval '1 second'
           + (millis % 1000 * 1000 + CASE
                  WHEN bits & 61440 = 28672 THEN least(((bits & 4095) * 1000 + 4095) / 4096, 999)
                  WHEN bits & 61440 < 28672 THEN 0 ELSE 999 END) * interval '1 microsecond';
END $$;
