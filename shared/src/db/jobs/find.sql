-- find: one job, of one account ($2) or of any (NULL).
SELECT id, account_id, kind, status, price, attempt, max_attempts, input::text, output::text, error::text,
       run_at, created_at, started_at,
       finished_at, expires_at, priority
FROM punchcard.jobs_now
WHERE id = $1
  AND account_id = coalesce($2::uuid, (SELECT account_id FROM punchcard.queue WHERE job_id = $1),
                            (SELECT account_id FROM punchcard.outcomes WHERE job_id = $1))
