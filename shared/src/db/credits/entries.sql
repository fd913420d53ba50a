-- entries: a page of an account's ledger ($1), newest first: up to $5 entries before the one at $2 of the key
-- $3 and the part $4. Without an entry there is one row, of where the next page begins.
SELECT id, kind, available_delta, held_delta, available_after, held_after, job_id, idempotency_key, reason,
       created_at, share, next_at, next_key, next_part
FROM punchcard.find_entries($1, $2::bigint, $3::uuid, $4::smallint, $5::bigint)
