-- For `apply_retention`: begins with the oldest month that is past the retention of payloads, and all that is
-- before it, if there is one that is not archived yet. From here on nothing can be put into it: a job of an
-- old system's whose id tells that month would never be archived.
CREATE OR REPLACE FUNCTION punchcard.open_archive() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    behind uuid;
    closed record;
BEGIN
    SELECT min(p.end_id::text)::uuid INTO behind
    FROM (SELECT lead(p.first_id) OVER (ORDER BY p.first_id NULLS FIRST) AS end_id, p.first_id, p.is_spare
          FROM punchcard.periods p WHERE p.of_table = 'jobs') p, punchcard.retention r
    WHERE p.first_id IS NOT NULL AND NOT p.is_spare AND p.end_id > r.archived_before
      AND p.end_id <= punchcard.first_id(now() - r.payload_days * interval '1 day');
    IF behind IS NULL THEN
        RETURN false;
    END IF;
    PERFORM punchcard.check_month(behind);
    FOR closed IN
        SELECT m.name FROM punchcard.months_before(behind) m
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c
                          WHERE c.conrelid = ('punchcard.' || quote_ident(m.name))::regclass
                            AND c.conname = 'past_its_retention')
    LOOP
        EXECUTE format('ALTER TABLE punchcard.%I ADD CONSTRAINT past_its_retention CHECK (false) NOT VALID',
                       closed.name);
    END LOOP;
    INSERT INTO punchcard.archived_months (end_id) VALUES (behind);
    RETURN true;
END $$;
