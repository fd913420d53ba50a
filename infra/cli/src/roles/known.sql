-- known: which of the two roles can log in already.
SELECT rolname::text FROM pg_catalog.pg_roles
WHERE rolname IN ('punchcard_migrator', 'punchcard_app') AND rolcanlogin
