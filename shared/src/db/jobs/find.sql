-- find: one job, of one account ($2) or of any (NULL).
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text,
       n.output::text, n.error::text, n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at,
       n.priority, n.captured, n.crashes, n.cancel_requested_at, n.progress_percent, n.progress_message,
       n.progress_at, n.retry_of,
       (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = n.id), n.metadata::text, n.tags,
       (SELECT m.amount FROM punchcard.movements m WHERE m.job_id = n.id), n.waiting_until, n.webhook::text
FROM punchcard.jobs_now n
WHERE n.id = $1
  AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = n.account_id)
  AND n.account_id = coalesce($2::uuid, (SELECT account_id FROM punchcard.queue WHERE job_id = $1),
                              (SELECT account_id FROM punchcard.outcomes WHERE job_id = $1))
