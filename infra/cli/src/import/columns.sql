-- columns: the columns of a table: name, type, and the type's category (D: a time, N: a number, S: text).
SELECT a.attname::text, format_type(a.atttypid, NULL), t.typcategory::text
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
