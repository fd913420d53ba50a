-- keys_of: up to $3 idempotency keys of an account ($1) behind the one of the digest $2, with what they
-- bought.
SELECT k.key, k.job_id, k.last_job_id FROM punchcard.idempotency_keys k
WHERE k.account_id = $1 AND k.key > $2
ORDER BY k.key
LIMIT $3
