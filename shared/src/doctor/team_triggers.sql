-- team_triggers: triggers of the team's on Punchcard's tables. What one refuses or delays is that row's alone
-- where jobs are claimed, recorded, taken back and retried; of messages and check-ins it is the whole
-- statement's.
SELECT format('the trigger %s on %s is not Punchcard''s: a job that it refuses waits; a message or a '
              'progress report that it refuses holds up all of them',
              t.tgname, t.tgrelid::regclass)
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace = to_regnamespace('punchcard') AND NOT t.tgisinternal AND t.tgparentid = 0
  AND p.pronamespace <> c.relnamespace
