-- claim_deliveries: takes up to $1 messages to send, for $2 seconds, each with its job as it is now.
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text, n.output::text, n.error::text,
       n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at, n.priority, n.captured, n.crashes,
       n.cancel_requested_at, n.progress_percent, n.progress_message, n.progress_at, n.retry_of, NULL::uuid, n.metadata::text,
       n.tags, NULL::bigint, n.waiting_until, n.webhook::text,
       d.id, d.event, d.url, d.attempt, d.created_at, d.secret_version, d.old_secret_version, k.secret_version
FROM punchcard.claim_deliveries($1, $2) d
JOIN punchcard.jobs_now n ON n.account_id = d.account_id AND n.id = d.job_id
JOIN punchcard.kinds k ON k.name = n.kind
