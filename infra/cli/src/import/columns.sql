-- columns: the columns of a table: name; type, as it is shown and, without a length, as a word is cast to it;
-- the type's category (D: a time, N: a number, S: text) and, behind domains, its name; whether this role may
-- read it, and change it; whether its values are generated.
WITH RECURSIVE base (oid, of) AS (
    SELECT t.oid, t.oid FROM pg_type t
    WHERE t.oid IN (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = to_regclass($1))
    UNION ALL
    SELECT t.typbasetype, b.of FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'
)
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
       t.typcategory::text,
       (SELECT format_type(b.oid, NULL) FROM base b JOIN pg_type p ON p.oid = b.oid
        WHERE b.of = t.oid AND p.typtype <> 'd'),
       has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
       a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
