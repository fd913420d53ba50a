-- temporary: whoever may create temporary objects and needs none; and the team's own functions in an exposed
-- schema that would take one for what they mean: worth a warning.
SELECT format('%s may create temporary objects in the database %s', r.rolname, current_database())
FROM pg_catalog.pg_roles r
WHERE r.rolname = 'punchcard_app' AND has_database_privilege(r.oid, current_database(), 'TEMPORARY')
UNION ALL
SELECT format('%s: SECURITY DEFINER in an exposed schema, and its search_path does not end in pg_temp',
              p.oid::regprocedure)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
LEFT JOIN LATERAL (SELECT substr(c, 13) AS path FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%') pin
    ON true
WHERE p.prosecdef AND p.prosqlbody IS NULL AND n.nspname NOT IN ('punchcard', 'punchcard_api')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  AND (pin.path ~ '(^|, |")pg_temp"?$' AND pin.path !~ 'pg_temp.*pg_temp') IS NOT TRUE
  AND n.nspname IN (
      SELECT trim(e.name)
      FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c,
           unnest(string_to_array(substr(c, 18), ',')) AS e (name)
      WHERE c LIKE 'pgrst.db!_schemas=%' ESCAPE '!'
      -- Supabase exposes it unless it is told otherwise, and need not say so here.
      UNION ALL SELECT 'public' FROM pg_catalog.pg_roles r WHERE r.rolname = 'authenticator')
ORDER BY 1
