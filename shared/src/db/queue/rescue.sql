-- rescue: takes back up to $1 jobs whose lease, wait or life has lapsed, but for those of the accounts $2;
-- status NULL: it cannot be taken back now. Rows without a job name what else there is to do: `deliveries`
-- that are due, `returns` where credits have a source, and the tasks of upkeep that are due.
SELECT job_id, status, told, account_id FROM punchcard.rescue($1, $2)
UNION ALL SELECT NULL, 'returns', false, NULL FROM punchcard.credit_source
UNION ALL SELECT NULL, 'deliveries', true, NULL
          WHERE EXISTS (SELECT FROM punchcard.outbox b WHERE b.next_at <= now())
UNION ALL SELECT NULL, u.task, false, NULL FROM punchcard.upkeep u WHERE u.next_at <= now()
