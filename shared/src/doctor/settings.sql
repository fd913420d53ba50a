-- settings: what is in force on a connection and must be otherwise for the statements to do what they say.
SELECT format('%s is %s, and must be %s', s.name, s.value, s.wanted)
FROM (VALUES
    ('default_transaction_isolation', current_setting('default_transaction_isolation'), 'read committed'),
    ('row_security', current_setting('row_security'), 'on'),
    ('session_replication_role', current_setting('session_replication_role'), 'origin')) AS s (name, value, wanted)
WHERE s.value <> s.wanted
UNION ALL
-- A path that names PostgreSQL's own schema behind another lets that one's functions and types go first.
SELECT format('search_path is %s, and must be pg_catalog, pg_temp', current_setting('search_path'))
WHERE (SELECT p.name FROM unnest(current_schemas(true)) WITH ORDINALITY AS p (name, n)
       WHERE p.name !~ '^pg_temp_' ORDER BY p.n LIMIT 1) <> 'pg_catalog'
UNION ALL
-- Less ends statements that do what they should. The last of them is PostgreSQL 17's.
SELECT format('%s is %s, and must be a second or more', s.name, current_setting(s.name))
FROM pg_catalog.pg_settings s
WHERE s.name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout')
  AND s.setting::bigint BETWEEN 1 AND 999
UNION ALL
-- The other values wait for the disk of this server at least.
SELECT 'synchronous_commit is off, and must be on' WHERE current_setting('synchronous_commit') = 'off'
