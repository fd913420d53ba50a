-- rescue: takes back up to $1 jobs whose lease or life has lapsed; a last row of NULLs says that credits have a source.
SELECT job_id, status FROM punchcard.rescue($1)
UNION ALL SELECT NULL, NULL FROM punchcard.credit_source
