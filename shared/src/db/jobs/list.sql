-- list: an account's jobs, newest first, older than the cursor ($4), perhaps of one status ($2) or kind ($3).
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text, n.output::text, n.error::text,
       n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at, n.priority, n.captured, n.crashes,
       n.cancel_requested_at, n.progress_percent, n.progress_message, n.progress_at, n.retry_of,
       (SELECT r.id FROM punchcard.jobs r WHERE r.retry_of = n.id), n.metadata::text, n.tags,
       (SELECT l.amount FROM punchcard.ledger l WHERE l.job_id = n.id AND l.kind = 'adjust'), n.waiting_until, n.webhook::text
FROM punchcard.jobs_now n
WHERE n.account_id = $1
  AND ($2::text IS NULL OR n.status = $2)
  AND ($3::text IS NULL OR n.kind = $3)
  AND ($4::uuid IS NULL OR n.id < $4)
ORDER BY n.id DESC
LIMIT $5
