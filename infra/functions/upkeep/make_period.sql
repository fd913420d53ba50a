-- For `make_periods`: a table like another, with what PostgreSQL does not give to a partition: its settings,
-- the triggers that refuse a TRUNCATE, and no grant to anybody, whatever default privileges say. Row security
-- comes from `set_policies`.
CREATE OR REPLACE FUNCTION punchcard.make_period(p_table text, p_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    refused record;
    others text;
BEGIN
    EXECUTE format('CREATE TABLE punchcard.%I (LIKE punchcard.%I INCLUDING ALL) USING heap '
                   'WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01, '
                   -- Nothing dies here but what was rolled back, or erased: that is to go soon.
                   'autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, '
                   'autovacuum_analyze_scale_factor = 0.01)', p_name, p_table);
    FOR refused IN
        SELECT t.tgname AS name, replace(encode(t.tgargs, 'escape'), E'\\000', '') AS why
        FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = ('punchcard.' || quote_ident(p_table))::regclass
          AND t.tgfoid = 'punchcard.refuse_change()'::regprocedure
          AND t.tgtype & 32 <> 0  -- TRUNCATE
    LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON punchcard.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION punchcard.refuse_change(%L)',
                       refused.name, p_name, refused.why);
    END LOOP;
    SELECT string_agg(DISTINCT ', ' || a.grantee::regrole::text, '') INTO others
    FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = ('punchcard.' || quote_ident(p_name))::regclass AND a.grantee NOT IN (0, c.relowner);
    EXECUTE format('REVOKE ALL ON punchcard.%I FROM %s', p_name,
                   concat(punchcard.everybody_else(), others));
END $$;
