-- is_final: whether a job ($1) is final, of one account ($2) or of any (NULL); no row if it is not there. By
-- two primary keys, and nothing wide: whoever waits asks it again and again.
SELECT true FROM punchcard.outcomes o
WHERE o.job_id = $1 AND o.account_id = coalesce($2::uuid, o.account_id)
  AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = o.account_id)
UNION ALL
SELECT false FROM punchcard.queue q
WHERE q.job_id = $1 AND q.account_id = coalesce($2::uuid, q.account_id)
  AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = q.account_id)
