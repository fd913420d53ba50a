-- list: an account's jobs, newest first, older than the cursor ($4), perhaps of one status ($2) or kind ($3).
SELECT id, account_id, kind, status, price, attempt, max_attempts, input::text, output::text, error::text,
       run_at, created_at, started_at,
       finished_at, expires_at, priority
FROM punchcard.jobs_now
WHERE account_id = $1
  AND ($2::text IS NULL OR status = $2)
  AND ($3::text IS NULL OR kind = $3)
  AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC
LIMIT $5
