-- limits: what bounds accounts; the account of zeros is for all that have no bounds of their own.
SELECT account_id, unfinished_jobs, unfinished_bytes, enqueues_per_minute
FROM punchcard.limits ORDER BY account_id
