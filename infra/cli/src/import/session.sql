-- session: what this connection is to be like. Times are shown in UTC; a lock that the old system keeps is
-- not waited for; a look at a long table may take its time; each statement sees what has been committed by
-- then.
SELECT set_config('TimeZone', 'UTC', false), set_config('lock_timeout', '10s', false),
       set_config('statement_timeout', '0', false), set_config('standard_conforming_strings', 'on', false),
       set_config('default_transaction_isolation', 'read committed', false)
