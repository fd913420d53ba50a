-- rotate_webhook_secret: gives an account's webhooks a new secret.
SELECT url, events, secret_version, rotated_at, disabled_at,
       CASE WHEN rotated_at > now() - interval '1 day' THEN rotated_at + interval '1 day' END
FROM punchcard.rotate_webhook_secret($1)
