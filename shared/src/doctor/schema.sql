-- schema: the migrations that were applied.
SELECT name FROM punchcard.migrations ORDER BY name
