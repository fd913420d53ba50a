-- create: a token in the name's free slot; no row when both are taken.
INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256)
SELECT $1, s.slot, $2, $3
FROM (VALUES (1::smallint), (2::smallint)) s (slot)
WHERE NOT EXISTS (SELECT FROM punchcard.service_tokens t WHERE t.name = $1 AND t.slot = s.slot)
ORDER BY s.slot LIMIT 1
ON CONFLICT DO NOTHING
RETURNING slot
