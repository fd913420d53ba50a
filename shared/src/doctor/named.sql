-- named: something to prepare under a name, and to execute once the pooler may have changed the connection
-- behind it.
SELECT pg_backend_pid() WHERE $1::int4 = 1
