-- rescue: takes back up to $1 jobs whose lease, wait or life has lapsed, but for those of the accounts $2;
-- status NULL: it cannot be taken back now. Rows of NULLs say what else there is to do: true, messages are
-- due; false, credits have a source.
SELECT job_id, status, told, account_id FROM punchcard.rescue($1, $2)
UNION ALL SELECT NULL, NULL, false, NULL FROM punchcard.credit_source
UNION ALL SELECT NULL, NULL, true, NULL
          WHERE EXISTS (SELECT FROM punchcard.deliveries d WHERE d.next_at <= now())
