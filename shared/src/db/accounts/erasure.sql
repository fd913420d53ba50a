-- erasure: how far the erasure of an account is; no row if nobody asked for one.
SELECT account_id, asked_at, done_at, jobs, keys, messages, waits_for, error
FROM punchcard.erasures
WHERE account_id = $1
