-- entries: an account's ledger, newest first, older than the cursor ($2); not what was shifted between its shares.
SELECT id, kind::text, available_delta, held_delta, available_after, held_after, job_id, idempotency_key, reason,
       created_at, share
FROM punchcard.entries
WHERE account_id = $1 AND ($2::bigint IS NULL OR id < $2) AND kind <> 'shift'
ORDER BY id DESC
LIMIT $3
