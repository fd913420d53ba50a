-- cancel: a queued job at once, a running one by asking; of one account ($2) or of any (NULL). Answers the
-- job as it is then, which was neither retried nor refunded yet: looked at in the statement that does it, so
-- that no answer lacks it.
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text,
       n.output::text, n.error::text, n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at,
       n.priority, n.captured, n.crashes, n.cancel_requested_at, n.progress_percent, n.progress_message,
       n.progress_at, n.retry_of, NULL::uuid, n.metadata::text, n.tags, NULL::bigint, n.waiting_until,
       n.webhook::text
FROM punchcard.cancel($1, $2) AS done (status),
     LATERAL punchcard.job_now(CASE WHEN done.status IS NOT NULL THEN $1 END, $2) n
