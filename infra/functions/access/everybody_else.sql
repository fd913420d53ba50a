-- Of whom grants are taken back, for a REVOKE: everybody, and the roles to which a default privilege may have
-- given something by name (Supabase's do).
CREATE OR REPLACE FUNCTION punchcard.everybody_else() RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat('PUBLIC', string_agg(', ' || quote_ident(r.rolname), '')) FROM pg_catalog.pg_roles r
    WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'punchcard_app')
$$;
