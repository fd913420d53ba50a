-- temporary: a row if the functions' role may create temporary objects here, which it never needs.
SELECT 1 WHERE has_database_privilege('punchcard_app', current_database(), 'TEMPORARY')
