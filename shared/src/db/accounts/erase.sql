-- erase: closes an account for good, or tells how far its erasure is.
SELECT account_id, asked_at, done_at, jobs, keys, messages, waits_for, error
FROM punchcard.erase_account($1)
