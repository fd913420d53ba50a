-- checkpoints_of: what of the jobs $1 of an account ($2) is unfinished, and has saved something for its next
-- run; nothing, if it is erased.
SELECT q.job_id, q.checkpoint::text AS checkpoint FROM punchcard.queue q
WHERE q.job_id = ANY ($1) AND q.checkpoint IS NOT NULL
  AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = $2)
