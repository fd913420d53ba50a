-- is_keyed: a row if an idempotency key ($2) of an account ($1) has bought something.
SELECT 1 FROM punchcard.jobs WHERE account_id = $1 AND idempotency_key = $2
