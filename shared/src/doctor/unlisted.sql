-- unlisted: whether this role may read the list of what is needed. If not, what the functions' role may do
-- and this one may not; no row where it may.
SELECT 'punchcard.access()'
WHERE NOT has_function_privilege(to_regprocedure('punchcard.access()')::oid, 'EXECUTE')
UNION ALL
SELECT p.oid::regprocedure::text
FROM pg_catalog.pg_proc p, pg_catalog.pg_roles r
WHERE NOT has_function_privilege(to_regprocedure('punchcard.access()')::oid, 'EXECUTE')
  AND r.rolname = 'punchcard_app' AND p.pronamespace = to_regnamespace('punchcard')
  AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND NOT has_function_privilege(p.oid, 'EXECUTE')
