-- table: the table that `--from` names, as it is quoted; what it is; whether Punchcard's are here; and, if
-- there is none of that name, those whose names differ in small and capital letters alone.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       CASE WHEN n.nspname = 'punchcard' THEN 'Punchcard''s own' WHEN c.relkind IN ('r', 'p') THEN 'table'
            WHEN c.relkind IN ('v', 'm') THEN 'a view' WHEN c.relkind = 'f' THEN 'a foreign table'
            ELSE 'something else' END,
       to_regclass('punchcard.outcomes') IS NOT NULL,
       (SELECT string_agg(quote_ident(o.nspname) || '.' || quote_ident(t.relname), ', '
                          ORDER BY o.nspname, t.relname)
        FROM pg_class t JOIN pg_namespace o ON o.oid = t.relnamespace
        WHERE c.oid IS NULL AND t.relkind IN ('r', 'p') AND o.nspname !~ '^pg_toast'
          AND lower(t.relname::text COLLATE "C") = lower(named.last COLLATE "C"))
FROM (SELECT to_regclass($1) AS oid, trim('"' FROM regexp_replace($1, '^.*[.]', '')) AS last) named
LEFT JOIN pg_class c ON c.oid = named.oid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
