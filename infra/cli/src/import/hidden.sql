-- hidden: of the old table ($1) and Punchcard's own, those of which row security may hide rows from this
-- role, or keep it from changing them: all where no policy of the role's lets all pass. A table without rows
-- shows nothing else.
SELECT c.oid::regclass::text
FROM pg_class c
WHERE (c.oid = to_regclass($1) OR (c.relnamespace = to_regnamespace('punchcard') AND c.relkind IN ('r', 'p')))
  AND row_security_active(c.oid)
  AND NOT (EXISTS (SELECT FROM pg_policy p
                   WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*'
                     AND pg_get_expr(p.polqual, c.oid) = 'true'
                     AND coalesce(pg_get_expr(p.polwithcheck, c.oid), 'true') = 'true'
                     AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE')))
           AND NOT EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) r
                           WHERE p.polrelid = c.oid AND NOT p.polpermissive
                             AND (r = 0 OR pg_has_role(r, 'USAGE'))))
ORDER BY c.oid = to_regclass($1) DESC, 1
