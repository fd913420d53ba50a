-- set_webhook: says where an account is told of its jobs, or (NULL) that it is not.
SELECT url, events, secret_version, rotated_at, disabled_at,
       CASE WHEN rotated_at > now() - interval '1 day' THEN rotated_at + interval '1 day' END
FROM punchcard.set_webhook($1, $2, $3)
