-- is_keyed: a row if an idempotency key ($2) of an account ($1) has bought something.
SELECT 1 FROM punchcard.idempotency_keys WHERE account_id = $1 AND key = punchcard.key_digest($2)
