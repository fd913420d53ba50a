-- list: an account's jobs, newest first, older than the cursor ($4), perhaps of one status ($2) or kind ($3).
SELECT id, account_id, kind, status, price, attempt, max_attempts, input::text, output::text, error::text,
       punchcard.rfc3339(run_at), punchcard.rfc3339(created_at), punchcard.rfc3339(started_at),
       punchcard.rfc3339(finished_at), punchcard.rfc3339(expires_at), priority
FROM punchcard.jobs_now
WHERE account_id = $1
  AND ($2::text IS NULL OR status = $2)
  AND ($3::text IS NULL OR kind = $3)
  AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC
LIMIT $5
