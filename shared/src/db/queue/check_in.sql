-- check_in: notes the progress of jobs that are running and what they save; answers of which it did, and
-- which are to be canceled.
SELECT job_id, noted, to_cancel FROM punchcard.check_in($1, $2, $3, $4, $5)
