-- claim: queued -> running for due jobs that this worker serves, from where its last claim ended.
SELECT job_id, lease_token, account_id, kind, attempt, max_attempts, input, url, secret_version, retired,
       timeout_seconds, backoff_seconds, backoff_max_seconds, lasts_seconds, priority, run_at_micros
FROM punchcard.claim($1, $2, $3, $4, $5, $6, $7, $8)
