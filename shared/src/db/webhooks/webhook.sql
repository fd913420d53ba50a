-- webhook: where an account is told of its jobs, and until when its last secret signs, too.
SELECT url, events, secret_version, rotated_at, disabled_at,
       CASE WHEN rotated_at > now() - interval '1 day' THEN rotated_at + interval '1 day' END
FROM punchcard.webhooks WHERE account_id = $1
