-- session: what is in force on a connection; the clock in seconds since 1970.
SELECT version(), pg_backend_pid(), extract(epoch FROM clock_timestamp())::double precision,
       current_user::text, current_setting('statement_timeout'), current_setting('lock_timeout'),
       current_setting('idle_in_transaction_session_timeout'), pg_is_in_recovery(),
       current_setting('default_transaction_read_only') = 'on',
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
       (SELECT r.rolbypassrls FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
       current_setting('max_connections')::integer
           - current_setting('superuser_reserved_connections')::integer,
       current_setting('server_version_num')::integer, current_setting('server_encoding')
