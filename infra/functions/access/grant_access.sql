-- Every grant there is, and the policies of owner and functions' role. Run it again, as the owner, after
-- something was granted by hand or a restore left something out; `punchcard migrate` does where it must.
CREATE OR REPLACE FUNCTION punchcard.grant_access() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant record;
BEGIN
    PERFORM punchcard.set_policies();
    PERFORM punchcard.revoke_defaults();
    FOR meant IN SELECT * FROM punchcard.access() LOOP
        EXECUTE format('GRANT %s%s ON %s %s TO %I', meant.privilege, ' (' || meant.columns || ')',
                       meant.type, meant.object, meant.role);
    END LOOP;
END $$;
