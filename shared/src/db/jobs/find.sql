-- find: one job, of one account ($2) or of any (NULL).
SELECT id, account_id, kind, status, price, attempt, max_attempts, input::text, output::text, error::text,
       punchcard.rfc3339(run_at), punchcard.rfc3339(created_at), punchcard.rfc3339(started_at),
       punchcard.rfc3339(finished_at), punchcard.rfc3339(expires_at)
FROM punchcard.jobs
WHERE id = $1 AND ($2::uuid IS NULL OR account_id = $2)
