-- claim_deliveries: takes up to $1 messages to send, for $2 seconds, each with its job as it is now; $3
-- leaves a share over, $4 may have $5 more each, and accounts are visited behind $6. Each row says whether
-- there may be more, and where it ended.
SELECT (d.job).id, (d.job).account_id, (d.job).kind, (d.job).status, (d.job).price, (d.job).attempt,
       (d.job).max_attempts, (d.job).input::text, (d.job).output::text, (d.job).error::text, (d.job).run_at,
       (d.job).created_at, (d.job).started_at, (d.job).finished_at, (d.job).expires_at, (d.job).priority,
       (d.job).captured, (d.job).crashes, (d.job).cancel_requested_at, (d.job).progress_percent,
       (d.job).progress_message, (d.job).progress_at, (d.job).retry_of, NULL::uuid, (d.job).metadata::text,
       (d.job).tags, NULL::bigint, (d.job).waiting_until, (d.job).webhook::text, d.id, d.event, d.url,
       d.attempt, d.created_at, d.secret_version, d.old_secret_version, d.kind_secret_version, d.put_back,
       d.more, d.walked
FROM punchcard.claim_deliveries($1, $2, $3, $4, $5, $6) d
