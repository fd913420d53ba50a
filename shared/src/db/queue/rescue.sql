-- rescue: takes back up to $1 jobs whose lease or life has lapsed.
SELECT job_id, status FROM punchcard.rescue($1)
