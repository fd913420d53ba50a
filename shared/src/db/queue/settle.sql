-- settle: records many verdicts at once, each fenced by its lease; answers the jobs it settled, and how they stand now.
SELECT job_id, status FROM punchcard.settle($1, $2, $3, $4, $5, $6, $7)
