-- valid: every service token that is accepted now.
SELECT name, scopes, sha256 FROM punchcard.service_tokens ORDER BY name, slot
