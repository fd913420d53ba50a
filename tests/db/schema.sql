-- The schema as the catalog has it, for people to read: types, tables with their columns, constraints,
-- indexes and triggers, what the views show, the functions' signatures, and who may what. One text.
WITH type AS (
    SELECT 1 AS part, t.typname::text AS name,
           format(E'-- %s\nCREATE TYPE punchcard.%I AS ENUM (%s);\n', obj_description(t.oid, 'pg_type'),
                  t.typname,
                  (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                   FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)) AS text
    FROM pg_catalog.pg_type t WHERE t.typnamespace = 'punchcard'::regnamespace AND t.typtype = 'e'
), relation AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.reloptions,
           obj_description(c.oid, 'pg_class') AS comment
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind IN ('r', 'p', 'v')
      AND NOT c.relispartition
), shown AS (
    SELECT c.attrelid,
           string_agg(format('    %s %s%s%s,%s', quote_ident(c.attname), format_type(c.atttypid, c.atttypmod),
                             CASE WHEN c.attnotnull THEN ' NOT NULL' ELSE '' END,
                             coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), ''),
                             coalesce('  -- ' || col_description(c.attrelid, c.attnum), '')),
                      E'\n' ORDER BY c.attnum) AS columns
    FROM pg_catalog.pg_attribute c
    JOIN relation r ON r.oid = c.attrelid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
    WHERE c.attnum > 0 AND NOT c.attisdropped
    GROUP BY c.attrelid
), tables AS (
    SELECT 2 AS part, r.name,
           concat(E'-- ' || r.comment || E'\n',
                  format(E'CREATE TABLE punchcard.%I (\n%s\n%s\n)%s;\n', r.name, s.columns,
                         (SELECT string_agg(format('    CONSTRAINT %I %s', o.conname,
                                                   pg_get_constraintdef(o.oid)), E',\n'
                                            ORDER BY o.contype <> 'p', o.conname)
                          FROM pg_catalog.pg_constraint o
                          WHERE o.conrelid = r.oid AND o.contype IN ('p', 'u', 'c')),
                         concat(' WITH (' || array_to_string(r.reloptions, ', ') || ')',
                                ' PARTITION BY ' || pg_get_partkeydef(r.oid))),
                  (SELECT string_agg(concat(E'-- ' || obj_description(i.indexrelid, 'pg_class') || E'\n',
                                            replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON '),
                                            E';\n'), '' ORDER BY n.relname)
                   FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class n ON n.oid = i.indexrelid
                   WHERE i.indrelid = r.oid
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid)),
                  (SELECT string_agg(pg_get_triggerdef(t.oid) || E';\n', '' ORDER BY t.tgname)
                   FROM pg_catalog.pg_trigger t WHERE t.tgrelid = r.oid AND NOT t.tgisinternal)) AS text
    FROM relation r JOIN shown s ON s.attrelid = r.oid WHERE r.relkind <> 'v'
), views AS (
    SELECT 3, r.name, format(E'%s-- VIEW punchcard.%I (\n%s\n-- )\n', E'-- ' || r.comment || E'\n', r.name,
                             regexp_replace(rtrim(s.columns, ','), '^', '-- ', 'gn'))
    FROM relation r JOIN shown s ON s.attrelid = r.oid WHERE r.relkind = 'v'
), functions AS (
    SELECT 4, p.proname::text,
           format(E'-- %s\n-- FUNCTION punchcard.%I(%s)\n--     RETURNS %s%s\n',
                  obj_description(p.oid, 'pg_proc'), p.proname,
                  pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                  CASE WHEN p.prosecdef THEN ', as its owner' ELSE '' END)
    FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'punchcard'::regnamespace
), access AS (
    SELECT 5, format('%s %s %s %s', a.role, a.type, a.object, a.privilege),
           format(E'GRANT %s%s ON %s %s TO %s;\n', a.privilege, ' (' || a.columns || ')', a.type, a.object,
                  a.role)
    FROM punchcard.access() a
)
SELECT string_agg(a.text, CASE WHEN a.part < 5 THEN E'\n' ELSE '' END
                  ORDER BY a.part, a.name COLLATE "C") AS schema
FROM (SELECT * FROM type UNION ALL SELECT * FROM tables UNION ALL SELECT * FROM views
      UNION ALL SELECT * FROM functions UNION ALL SELECT * FROM access) a
