-- upkeep: what a tick should have done beside the jobs, and has not; and tables that are kept by month whose
-- months end soon. What is bought behind the last month is kept all the same, in one table for all months.
SELECT format(CASE u.task WHEN 'audit' THEN 'the %s has %s' ELSE 'upkeep of %s has to wait: %s' END, u.task,
              u.error)
FROM punchcard.upkeep u WHERE u.error IS NOT NULL
UNION ALL
SELECT format('the erasure of account %s has to wait: %s', e.account_id, e.error)
FROM punchcard.erasures e
WHERE e.done_at IS NULL AND e.error IS NOT NULL AND e.asked_at < now() - interval '1 hour'
UNION ALL
SELECT format('what lapses of the credits of account %s has to wait: %s', d.account_id, d.error)
FROM punchcard.dated_accounts d
WHERE d.error IS NOT NULL AND d.dealt_at < now() - interval '1 hour'
UNION ALL
SELECT format('ticks leave %s accounts of more than a million entries out of the audit: '
              '`punchcard credits audit` looks at them', r.left_out)
FROM punchcard.audit_rounds r WHERE r.left_out > 0
UNION ALL
SELECT format('upkeep of %s has been due since %s: does the schedule invoke the poller, and is its build '
              'current?', u.task, to_char(u.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
FROM punchcard.upkeep u WHERE u.error IS NULL AND u.next_at < now() - interval '26 hours'
UNION ALL
SELECT format('the months of punchcard.%s end in %s: `punchcard migrate` makes more, as ticks do', p.of_table,
              to_char(punchcard.uuid_time(p.first_id) AT TIME ZONE 'UTC', 'YYYY-MM'))
FROM punchcard.periods p
WHERE p.is_spare AND p.first_id < punchcard.first_id(now() + interval '2160 hours')
