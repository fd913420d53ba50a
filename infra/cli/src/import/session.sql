-- session: what this connection is to be like. Times without a zone are UTC; a lock that the old system keeps is not
-- waited for; a look at a long table may take its time.
SELECT set_config('TimeZone', 'UTC', false), set_config('lock_timeout', '10s', false),
       set_config('statement_timeout', '0', false), set_config('standard_conforming_strings', 'on', false)
