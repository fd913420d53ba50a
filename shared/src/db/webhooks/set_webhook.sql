-- set_webhook: says where an account is told of its jobs, or (NULL) that it is not.
SELECT url, events, secret_version, rotated_at, disabled_at FROM punchcard.set_webhook($1, $2, $3)
