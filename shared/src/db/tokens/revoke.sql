-- revoke: the token in one slot ($2), or every token of the name (NULL).
DELETE FROM punchcard.service_tokens WHERE name = $1 AND ($2::smallint IS NULL OR slot = $2)
