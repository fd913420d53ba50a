-- backoff: when a job is to be tried again after an error: its kind's policy, its own, and some chance.
SELECT k.backoff, k.backoff_seconds, k.backoff_max_seconds, k.backoff_delays, k.jitter, j.retry::text,
       q.attempt, random()
FROM punchcard.queue q
JOIN punchcard.jobs j ON j.account_id = q.account_id AND j.id = q.job_id
JOIN punchcard.kinds k ON k.name = q.kind
WHERE q.job_id = $1
