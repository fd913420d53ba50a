-- Takes back what is everybody's once it is created: functions by PostgreSQL's default, and by name what
-- default privileges give (Supabase's). `grant_access` then grants what is meant, by name. Every function's
-- path ends in pg_temp, which is searched first where it is not named, for types and relations: a caller's
-- temporary domain `text` would run as the owner.
CREATE OR REPLACE FUNCTION punchcard.revoke_defaults() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own name;
    who text := punchcard.everybody_else();
    what text;
BEGIN
    FOR own IN
        SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname IN ('punchcard', 'punchcard_api')
    LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %s', own, who);
        FOREACH what IN ARRAY ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS'] LOOP
            EXECUTE format('REVOKE ALL ON ALL %s IN SCHEMA %I FROM %s', what, own, who);
        END LOOP;
    END LOOP;
END $$;
