-- claim: queued -> running for the named jobs and others that are due and served here, from where the last
-- claim ended.
SELECT job_id, lease_token, account_id, kind, attempt, max_attempts, input, url, secret_version, retired,
       timeout_seconds, backoff_seconds, backoff_max_seconds, lasts_seconds, priority, run_at_micros, price,
       metered, backoff, backoff_delays, jitter, retry, cancel_url, callback_seconds, checkpoint, told
FROM punchcard.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
