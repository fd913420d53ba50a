-- settle: records many verdicts at once, each fenced by its lease; answers the jobs it settled.
SELECT job_id FROM punchcard.settle($1, $2, $3, $4, $5, $6)
