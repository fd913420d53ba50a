-- find: an account's balance, at its source too; no row for an account that was never granted anything. And
-- what of it lapses, and when.
SELECT b.available, b.held, coalesce(l.amounts, '{}'), coalesce(l.times, '{}')
FROM punchcard.balance($1) b,
     (SELECT array_agg(l.left_over ORDER BY l.expires_at, l.entry) AS amounts,
             array_agg(l.expires_at ORDER BY l.expires_at, l.entry) AS times
      FROM punchcard.dated_left($1) l WHERE l.left_over > 0 AND l.expires_at > now()) l
