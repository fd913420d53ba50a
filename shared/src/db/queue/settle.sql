-- settle: records many verdicts at once, each fenced by its lease; answers the jobs it settled, how they
-- stand now (NULL: out of reach, to be sent again), and whether somebody is to be told.
SELECT job_id, status, told FROM punchcard.settle($1, $2, $3, $4, $5, $6, $7, false, $8)
