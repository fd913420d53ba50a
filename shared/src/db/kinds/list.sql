-- list: every kind with its price and policy.
SELECT name, price, max_attempts, backoff_seconds, backoff_max_seconds, timeout_seconds, life_seconds, url,
       secret_version, retired_at IS NOT NULL, dispatch = 'sqs', metered, on_cancel::text,
       on_input_error::text, max_crashes, backoff, backoff_delays, jitter, cancel_url, callback_seconds,
       max_priority
FROM punchcard.kinds ORDER BY name
