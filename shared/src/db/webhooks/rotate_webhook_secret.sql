-- rotate_webhook_secret: gives an account's webhooks a new secret.
SELECT url, events, secret_version, rotated_at, disabled_at FROM punchcard.rotate_webhook_secret($1)
