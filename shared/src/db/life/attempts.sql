-- attempts: every run of a job that has ended, oldest first; of one account ($2) or of any (NULL).
SELECT r.number, r.attempt, r.ended, r.started_at, r.ended_at, r.error::text
FROM punchcard.runs r
WHERE r.job_id = $1
  AND ($2::uuid IS NULL OR EXISTS (SELECT FROM punchcard.jobs j WHERE j.account_id = $2 AND j.id = $1))
ORDER BY r.number
