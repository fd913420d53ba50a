-- dated_of: up to $3 grants with a date of an account ($1), behind the one with the number $2.
SELECT g.entry, g.expires_at, g.left_over FROM punchcard.dated_grants g
WHERE g.account_id = $1 AND g.entry > $2
ORDER BY g.entry
LIMIT $3
