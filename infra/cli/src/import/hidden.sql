-- hidden: why this role may see fewer rows than there are, of Punchcard's tables or of the old one ($1): no row of a table is
-- no proof then that it is empty.
SELECT format('row security hides Punchcard''s rows from %s: import as their owner; the owner itself runs `punchcard migrate` '
              'first', current_user)
FROM punchcard.hidden h WHERE h.hidden_from = current_user
UNION
SELECT format('row security hides rows of %s from %s: import as a role that it does not bind, or add a policy that lets this '
              'one see all (USING (true))', $1, current_user)
FROM (SELECT to_regclass($1) AS oid) t
WHERE row_security_active(t.oid) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_policy p
    WHERE p.polrelid = t.oid AND p.polpermissive AND p.polcmd = '*' AND pg_get_expr(p.polqual, p.polrelid) = 'true'
      AND EXISTS (SELECT FROM unnest(p.polroles) AS passes (role) WHERE passes.role = 0 OR pg_has_role(passes.role, 'USAGE')))
ORDER BY 1
