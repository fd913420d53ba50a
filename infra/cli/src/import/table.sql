-- table: the table that `--from` names, as it is quoted; whether it is one; whether Punchcard's are here.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind IN ('r', 'p') AND n.nspname <> 'punchcard',
       to_regclass('punchcard.outcomes') IS NOT NULL
FROM (SELECT to_regclass($1) AS oid) named
LEFT JOIN pg_class c ON c.oid = named.oid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
