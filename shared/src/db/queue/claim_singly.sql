-- claim_singly: claims as `claim` does, job by job, without those that cannot be claimed.
SELECT job_id, lease_token, account_id, kind, attempt, max_attempts, input, url, secret_version, retired,
       timeout_seconds, backoff_seconds, backoff_max_seconds, lasts_seconds, priority, run_at_micros, price,
       metered, backoff, backoff_delays, jitter, retry, cancel_url, callback_seconds, checkpoint, told
FROM punchcard.claim_singly($1, $2, $3, $4, $5, $6)
