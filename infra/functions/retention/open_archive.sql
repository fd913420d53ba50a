-- For `apply_retention`: begins with the oldest month that is past the retention of payloads, and all that is
-- before it, if there is one that is not archived yet. From here on nothing can be put into it: a job of an
-- old system's whose id tells that month would never be archived.
CREATE OR REPLACE FUNCTION punchcard.open_archive() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    behind uuid;
    closed record;
    recent uuid;
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
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                          WHERE t.tgrelid = ('punchcard.' || quote_ident(m.name))::regclass
                            AND t.tgname = 'past_its_retention')
    LOOP
        -- No constraint: what is there may still be cleared (`erase_payloads`).
        EXECUTE format('CREATE TRIGGER past_its_retention BEFORE INSERT ON punchcard.%I '
                       'FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change(%L)',
                       closed.name, 'past_its_retention: what was bought in that time goes');
    END LOOP;
    -- Whoever put something in meanwhile was waited for.
    PERFORM punchcard.check_month(behind);
    -- No job lives, and is told of, for longer: the id of this one tells another time than its own.
    SELECT o.job_id INTO recent FROM punchcard.outcomes o
    WHERE o.job_id < behind AND o.finished_at > punchcard.uuid_time(behind) + interval '100 days'
      AND o.finished_at > now() - (SELECT r.payload_days FROM punchcard.retention r) * interval '1 day'
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'what was bought before % is kept: job % of an old system has an id of that time',
            to_char(punchcard.uuid_time(behind) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), recent
            USING ERRCODE = 'object_in_use';
    END IF;
    INSERT INTO punchcard.archived_months (end_id) VALUES (behind);
    RETURN true;
END $$;
