-- privileges: what the functions need and this role lacks.
SELECT p.oid::regprocedure::text
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = to_regnamespace('punchcard')
  AND p.proname IN ('enqueue', 'enqueue_batch', 'grant_credits', 'balance', 'claim', 'settle', 'rescue', 'return_credits',
                    'source_health')
  AND NOT has_function_privilege(p.oid, 'EXECUTE')
UNION ALL
SELECT 'punchcard.' || c.relname
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace('punchcard')
  AND c.relname IN ('accounts', 'ledger', 'entries', 'kinds', 'jobs', 'queue', 'outcomes', 'jobs_now', 'service_tokens',
                    'credit_source')
  AND NOT has_table_privilege(c.oid, 'SELECT')
