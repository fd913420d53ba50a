-- retry: buys a failed or canceled job once more, as a new job, of one account ($2) or of any (NULL). Answers
-- the new job and when a wake-up is wanted for it.
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text,
       n.output::text, n.error::text, n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at,
       n.priority, n.captured, n.crashes, n.cancel_requested_at, n.progress_percent, n.progress_message,
       n.progress_at, n.retry_of, NULL::uuid, n.metadata::text, n.tags, NULL::bigint, n.waiting_until,
       n.webhook::text, done.wake_after
FROM punchcard.retry($1, $2) AS done, LATERAL punchcard.job_now(done.job_id, done.account_id) n
