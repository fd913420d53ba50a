-- check_in: notes the progress of jobs that are running; answers those that are to be canceled.
SELECT job_id FROM punchcard.check_in($1, $2, $3, $4)
