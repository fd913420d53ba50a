-- check_in: notes the progress of jobs that are running and what they save; answers those that are to be canceled.
SELECT job_id FROM punchcard.check_in($1, $2, $3, $4, $5)
