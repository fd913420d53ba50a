-- list: names and scopes, never the tokens: they are not kept.
SELECT name, slot, scopes, punchcard.rfc3339(created_at) FROM punchcard.service_tokens ORDER BY name, slot
