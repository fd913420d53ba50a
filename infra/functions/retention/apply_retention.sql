-- Takes the next step of what retention asks for (ADR 20), and answers whether there is another: of the
-- oldest month that is past it, first its entries go into the archive, some thousand jobs a step; an hour
-- later, when nobody reads as of before, its tables leave their places and are dropped, one a step. Raises
-- why a month has to wait: that is its turn before any later one. What was done is done once: a step that
-- dies is taken again.
CREATE OR REPLACE FUNCTION punchcard.apply_retention() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    month punchcard.archived_months;
    gone name;
BEGIN
    SELECT c.relname INTO gone FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '_gone$'
    ORDER BY c.relname LIMIT 1;
    IF FOUND THEN
        EXECUTE format('DROP TABLE punchcard.%I', gone);
        RETURN true;
    END IF;
    SELECT * INTO month FROM punchcard.archived_months m WHERE m.gone_at IS NULL;
    IF NOT FOUND THEN
        IF punchcard.carry_entries() OR punchcard.open_archive() THEN
            RETURN true;
        END IF;
        PERFORM punchcard.check_carry();
        RETURN false;
    END IF;
    PERFORM punchcard.check_month(month.end_id);
    IF month.archived_at IS NULL THEN
        PERFORM punchcard.archive_jobs(month, 5000);
        RETURN true;
    END IF;
    IF month.archived_at > now() - interval '1 hour' THEN
        RETURN false;
    END IF;
    IF NOT punchcard.detach_month(month.end_id) THEN
        UPDATE punchcard.archived_months m SET gone_at = now() WHERE m.end_id = month.end_id;
    END IF;
    RETURN true;
END $$;
