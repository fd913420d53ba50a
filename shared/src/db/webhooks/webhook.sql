-- webhook: where an account is told of its jobs.
SELECT url, events, secret_version, rotated_at, disabled_at FROM punchcard.webhooks WHERE account_id = $1
