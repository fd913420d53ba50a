-- set_retention: keeps payloads for $1 days, keys for $2, money for $3 (NULL: for ever).
UPDATE punchcard.retention r SET payload_days = $1, key_days = $2, money_days = $3 WHERE r.only_one
