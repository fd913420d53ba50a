-- Row security binds the owner too (FORCE): it and the functions' role pass by name, everybody else sees no
-- row. Run again where somebody else owns the tables now: after a restore, or REASSIGN OWNED. What fits is
-- left alone, since each change takes its table's lock.
CREATE OR REPLACE FUNCTION punchcard.set_policies() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    wanted record;
BEGIN
    FOR t IN
        SELECT c.oid, c.relname, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS secured
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind IN ('r', 'p')
    LOOP
        IF NOT t.secured THEN
            EXECUTE format('ALTER TABLE punchcard.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
                           t.relname);
        END IF;
        FOR wanted IN
            SELECT w.*, p.oid IS NOT NULL AS there
            FROM (VALUES ('owner_does_all', 'ALL', t.relowner, 'WITH CHECK (true)'),
                         ('app_reads', 'SELECT', 'punchcard_app'::regrole::oid, ''))
                 w (name, command, role, more)
            LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = t.oid AND p.polname = w.name
            WHERE p.polroles IS DISTINCT FROM ARRAY[w.role] OR pg_get_expr(p.polqual, p.polrelid) <> 'true'
        LOOP
            IF wanted.there THEN
                EXECUTE format('DROP POLICY %I ON punchcard.%I', wanted.name, t.relname);
            END IF;
            EXECUTE format('CREATE POLICY %I ON punchcard.%I FOR %s TO %s USING (true) %s', wanted.name,
                           t.relname, wanted.command, wanted.role::regrole, wanted.more);
        END LOOP;
    END LOOP;
END $$;
