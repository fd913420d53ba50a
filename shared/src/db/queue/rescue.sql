-- rescue: takes back up to $1 jobs whose lease, wait or life has lapsed. Rows of NULLs say what else there is to do: true,
-- messages are due; false, credits have a source.
SELECT job_id, status, told FROM punchcard.rescue($1)
UNION ALL SELECT NULL, NULL, false FROM punchcard.credit_source
UNION ALL SELECT NULL, NULL, true WHERE EXISTS (SELECT FROM punchcard.deliveries d WHERE d.next_at <= now())
