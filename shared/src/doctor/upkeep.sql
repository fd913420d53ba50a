-- upkeep: what a tick should have done beside the jobs, and has not; and tables that are kept by month whose
-- months end soon. What is bought behind the last month is kept all the same, in one table for all months.
SELECT format('upkeep of %s has to wait: %s', u.task, u.error)
FROM punchcard.upkeep u WHERE u.error IS NOT NULL
UNION ALL
SELECT format('upkeep of %s is due since %s: no tick of this build does it', u.task,
              to_char(u.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
FROM punchcard.upkeep u WHERE u.error IS NULL AND u.next_at < now() - interval '26 hours'
UNION ALL
SELECT format('the months of punchcard.%s end %s: `punchcard migrate` makes more, as ticks do', c.relname,
              coalesce('in ' || to_char(punchcard.uuid_time(p.first_id) AT TIME ZONE 'UTC', 'YYYY-MM'),
                       'at once'))
FROM pg_catalog.pg_class c LEFT JOIN punchcard.periods p ON p.of_table = c.relname AND p.is_spare
WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'p'
  AND coalesce(p.first_id < punchcard.first_id(now() + interval '2160 hours'), true)
