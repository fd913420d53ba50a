-- list: names and scopes, never the tokens: they are not kept.
SELECT name, slot, scopes, created_at FROM punchcard.service_tokens ORDER BY name, slot
