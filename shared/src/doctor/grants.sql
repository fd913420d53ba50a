-- grants: who has more than is meant; no row when all is well. The rules are Supabase's advisors' (0011
-- search_path, 0013 row security, 0024 policies that are always true, 0028 and 0029 SECURITY DEFINER for
-- everybody), for our schemas.
WITH who AS (
    SELECT 0::oid AS oid, 'PUBLIC' AS name
    UNION ALL SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
    WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'punchcard_app')
), everybody AS (
    SELECT w.* FROM who w WHERE w.name IN ('PUBLIC', 'anon', 'authenticated')
), own AS (
    SELECT n.oid, n.nspname AS name, n.nspacl, n.nspowner FROM pg_catalog.pg_namespace n
    WHERE n.nspname IN ('punchcard', 'punchcard_api')
), meant AS MATERIALIZED (
    SELECT a.role, a.privilege, a.type, a.object, string_to_array(a.columns, ', ') AS columns
    FROM punchcard.access() a
)
SELECT format('schema %s: %s may %s', o.name, w.name, a.privilege_type)
FROM own o, aclexplode(coalesce(o.nspacl, acldefault('n', o.nspowner))) a JOIN who w ON w.oid = a.grantee
WHERE NOT EXISTS (SELECT FROM meant m WHERE m.type = 'SCHEMA' AND m.object = o.name
                  AND (m.role, m.privilege) = (w.name, a.privilege_type))
UNION ALL
SELECT format('%s.%s: %s may %s', o.name, c.relname, w.name, a.privilege_type)
FROM own o
JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid
JOIN LATERAL aclexplode(c.relacl) a ON true
JOIN who w ON w.oid = a.grantee
WHERE NOT EXISTS (SELECT FROM meant m WHERE m.object = o.name || '.' || c.relname AND m.columns IS NULL
                  AND (m.type, m.role, m.privilege) = ('TABLE', w.name, a.privilege_type))
UNION ALL
SELECT format('%s.%s.%s: %s may %s', o.name, c.relname, t.attname, w.name, a.privilege_type)
FROM own o
JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid
JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attacl IS NOT NULL
JOIN LATERAL aclexplode(t.attacl) a ON true
JOIN who w ON w.oid = a.grantee
WHERE NOT EXISTS (SELECT FROM meant m
                  WHERE m.object = o.name || '.' || c.relname AND t.attname = ANY (m.columns)
                  AND (m.type, m.role, m.privilege) = ('TABLE', w.name, a.privilege_type))
UNION ALL
SELECT format('%s: %s may EXECUTE', p.oid::regprocedure, w.name)
FROM own o
JOIN pg_catalog.pg_proc p ON p.pronamespace = o.oid
JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a ON true
JOIN who w ON w.oid = a.grantee
WHERE NOT EXISTS (SELECT FROM meant m WHERE m.type = 'FUNCTION' AND m.object = o.name || '.' || p.proname
                  AND (m.role, m.privilege) = (w.name, a.privilege_type))
UNION ALL
SELECT format('the role %s: is a member of %s', r.rolname, m.rolname)
FROM pg_catalog.pg_roles r, pg_catalog.pg_roles m
WHERE r.rolname IN ('anon', 'authenticated', 'service_role') AND m.rolname = 'punchcard_app'
  AND pg_has_role(r.oid, m.oid, 'MEMBER') AND NOT r.rolsuper
UNION ALL
SELECT format('punchcard.%s: row security is not enabled and forced', c.relname)
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relkind IN ('r', 'p')
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
UNION ALL
SELECT format('%s.%s: the policy %s lets %s pass', p.schemaname, p.tablename, p.policyname, p.roles)
FROM pg_catalog.pg_policies p
WHERE p.schemaname = 'punchcard' AND p.roles && ARRAY['public', 'anon', 'authenticated']::name[]
  AND (p.cmd <> 'SELECT' OR coalesce(p.qual, 'true') = 'true' OR p.roles && ARRAY['public', 'anon']::name[])
UNION ALL
SELECT format('%s.%s: the view has its owner''s rights: no security_invoker', o.name, c.relname)
FROM own o
JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid AND c.relkind = 'v'
WHERE NOT coalesce(c.reloptions, '{}') && ARRAY['security_invoker=on', 'security_invoker=true']
UNION ALL
SELECT format('%s: its search_path is not pg_catalog, pg_temp', p.oid::regprocedure)
FROM own o
JOIN pg_catalog.pg_proc p ON p.pronamespace = o.oid AND (p.prosecdef OR p.prorettype = 'trigger'::regtype)
-- In quotes where it was made under quote_all_identifiers.
WHERE NOT EXISTS (SELECT FROM unnest(p.proconfig) c
                  WHERE replace(c, '"', '') = 'search_path=pg_catalog, pg_temp')
UNION ALL
-- The team's own that call ours, or run as our owner. Where pg_temp is not named, types and relations are
-- looked for there first: whoever may create temporary objects has one in their place.
SELECT format(
    '%s: SECURITY DEFINER, calls Punchcard or runs as its owner, and its search_path does not end in pg_temp',
    p.oid::regprocedure)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
LEFT JOIN LATERAL (SELECT substr(c, 13) AS path FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%') pin
    ON true
WHERE p.prosecdef AND p.prosqlbody IS NULL AND p.pronamespace NOT IN (SELECT o.oid FROM own o)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  AND (p.prosrc COLLATE "C" ~* E'\\mpunchcard\\.'
       OR p.proowner IN (SELECT o.nspowner FROM own o JOIN pg_catalog.pg_roles r ON r.oid = o.nspowner
                         WHERE NOT r.rolsuper))
  AND (pin.path ~ '(^|, |")pg_temp"?$' AND pin.path !~ 'pg_temp.*pg_temp') IS NOT TRUE
UNION ALL
SELECT format('%s: SECURITY DEFINER, calls Punchcard, and %s may EXECUTE it', p.oid::regprocedure, e.name)
FROM pg_catalog.pg_proc p
JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a ON true
JOIN everybody e ON e.oid = a.grantee
WHERE p.prosecdef AND p.prosrc COLLATE "C" ~* E'\\mpunchcard\\.'
  AND p.pronamespace NOT IN (SELECT o.oid FROM own o)
UNION ALL
SELECT format('the role %s: may %s', r.rolname, more.what)
FROM pg_catalog.pg_roles r, LATERAL (VALUES
    (r.rolsuper, 'do everything: a superuser'),
    (r.rolbypassrls, 'pass by row security'),
    (r.rolcreaterole, 'make roles'),
    (r.rolcreatedb, 'make databases'),
    (has_schema_privilege(r.oid, to_regnamespace('punchcard'), 'CREATE'), 'create in the schema punchcard'),
    (EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = to_regnamespace('punchcard')
               AND pg_has_role(r.oid, c.relowner, 'USAGE')), 'act as the owner')) AS more (seen, what)
WHERE r.rolname = 'punchcard_app' AND more.seen
UNION ALL
SELECT format('the role %s: has no statement_timeout', r.rolname)
FROM pg_catalog.pg_roles r
WHERE r.rolname = 'punchcard_app' AND r.rolcanlogin AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
    WHERE s.setrole = r.oid AND c LIKE 'statement_timeout=%')
UNION ALL
SELECT format('the Data API exposes the schema punchcard (%s)', c)
FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
WHERE c ~ E'^pgrst\\.db_schemas=' AND c ~ '[=, ]punchcard *(,|$)'
ORDER BY 1
