-- settings: what is in force on a connection and must be otherwise for the statements to do what they say.
SELECT format('%s is %s, and must be %s', s.name, s.value, s.wanted)
FROM (VALUES
    ('default_transaction_isolation', current_setting('default_transaction_isolation'), 'read committed'),
    ('row_security', current_setting('row_security'), 'on'),
    ('session_replication_role', current_setting('session_replication_role'), 'origin'))
     AS s (name, value, wanted)
WHERE s.value <> s.wanted
UNION ALL
-- A path that names PostgreSQL's own schema behind another lets that one's functions and types go first; and
-- in one that everybody may create in, a function may be made that fits a call better than PostgreSQL's own.
-- As the session began: this statement has a path of its own.
SELECT format('search_path is %s, and must be pg_catalog, pg_temp', s.reset_val)
FROM pg_catalog.pg_settings s
CROSS JOIN LATERAL (
    SELECT array_agg(p.name ORDER BY p.n) FILTER (WHERE p.name <> 'pg_temp') AS names
    FROM (SELECT replace(btrim(e.name), '"', '') AS name, e.n
          FROM unnest(string_to_array(s.reset_val, ',')) WITH ORDINALITY AS e (name, n)) p) path
WHERE s.name = 'search_path'
  AND (array_position(path.names, 'pg_catalog') > 1
       OR EXISTS (SELECT FROM pg_catalog.pg_namespace n, aclexplode(n.nspacl) a
                  WHERE n.nspname = ANY (path.names) AND a.grantee = 0 AND a.privilege_type = 'CREATE'))
UNION ALL
-- Less ends statements that do what they should. The last of them is PostgreSQL 17's.
SELECT format('%s is %s, and must be a second or more', s.name, current_setting(s.name))
FROM pg_catalog.pg_settings s
WHERE s.name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout')
  AND s.setting::bigint BETWEEN 1 AND 999
UNION ALL
-- The other values wait for the disk of this server at least.
SELECT 'synchronous_commit is off, and must be on' WHERE current_setting('synchronous_commit') = 'off'
