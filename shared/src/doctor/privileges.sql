-- privileges: what the functions need, as `grant_access` grants it to their role, and this one lacks.
SELECT a.object || CASE a.type WHEN 'FUNCTION' THEN '()' ELSE '' END
       || CASE WHEN to_regclass(a.object) IS NULL AND to_regproc(a.object) IS NULL AND a.type <> 'SCHEMA'
               THEN ' (it is missing)' ELSE '' END
FROM punchcard.access() a
WHERE a.role = 'punchcard_app' AND NOT coalesce(CASE a.type
    WHEN 'SCHEMA' THEN has_schema_privilege(to_regnamespace(a.object), a.privilege)
    WHEN 'TABLE' THEN has_table_privilege(to_regclass(a.object), a.privilege)
    ELSE has_function_privilege(to_regproc(a.object)::oid, a.privilege) END, false)
