-- stop: has the server stop the audit whose statements begin with $1, whoever is at it: a request to cancel
-- that goes by the connection is the pooler's to pass on, and may reach another client.
SELECT count(pg_cancel_backend(a.pid)) FROM pg_catalog.pg_stat_activity a
WHERE starts_with(a.query, $1) AND a.state = 'active' AND a.pid <> pg_backend_pid()
