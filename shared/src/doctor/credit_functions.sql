-- credit_functions: the team's own functions and tables of credits, in shapes that lose or make money. By
-- their text: a finding is a reason to look, not a proof.
WITH candidate AS (
    SELECT p.oid, format('%I.%I', n.nspname, p.proname) AS name, p.prosecdef, s.text AS prosrc,
           (SELECT substr(c, 13) FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%') AS path, p.proacl,
           p.proowner
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    -- By ASCII: in a Turkish database INSERT is no capital form of insert.
    CROSS JOIN LATERAL (SELECT p.prosrc COLLATE "C" AS text) s
    WHERE n.nspname NOT IN ('punchcard', 'punchcard_api', 'pg_catalog', 'information_schema')
      AND p.prokind = 'f'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
      AND (p.proname COLLATE "C" ~* 'credit' OR s.text ~* 'credit') AND s.text ~* E'\\m(update|insert)\\M'
), open AS (
    SELECT c.oid FROM candidate c
    WHERE EXISTS (SELECT FROM aclexplode(coalesce(c.proacl, acldefault('f', c.proowner))) a
                  LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
                  WHERE a.privilege_type = 'EXECUTE'
                    AND (a.grantee = 0 OR r.rolname IN ('anon', 'authenticated')))
)
SELECT c.name || ': ' || shape.finding
FROM candidate c, LATERAL (VALUES
    (c.prosecdef AND c.oid IN (SELECT o.oid FROM open o),
     'mints: SECURITY DEFINER, and any user may call it'),
    (c.prosecdef AND (c.path ~ '(^|, |")pg_temp"?$' AND c.path !~ 'pg_temp.*pg_temp') IS NOT TRUE,
     'has no search_path that ends in pg_temp: a temporary table or type shadows what it means'),
    (c.prosrc ~* E'when\\s+others',
     'swallows errors (WHEN OTHERS): callers that do not look believe it'),
    (c.prosrc ~* E'greatest\\s*\\(\\s*0\\s*,',
     'clamps at 0 instead of refusing: an overdraft passes'),
    (c.prosrc ~* E'order\\s+by[^;]*limit\\s+1\\s+for\\s+(no\\s+key\\s+)?update',
     'locks the latest entry, which moves, instead of one row of the account'),
    (c.prosrc ~* E'select[^;]*\\minto\\M' AND c.prosrc !~* E'for\\s+(no\\s+key\\s+)?update'
     AND c.prosrc ~* E'\\mupdate\\M',
     'reads the balance, then writes it without a lock: two callers spend it twice')
) AS shape (seen, finding)
WHERE shape.seen
UNION ALL
SELECT format('%s.%I: may fall below zero: no CHECK', c.oid::regclass, a.attname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('credits', 'credit_balance')
 AND a.atttypid IN ('integer'::regtype, 'bigint'::regtype, 'numeric'::regtype) AND NOT a.attisdropped
WHERE c.relkind = 'r' AND n.nspname NOT IN ('punchcard', 'pg_catalog', 'information_schema')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey))
ORDER BY 1
