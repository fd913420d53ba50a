-- set_limits: bounds an account ($1) or, with zeros, all others, by the limits that are named ($5, $6, $7);
-- NULL is no bound. Others stay as they are: of an account that had none of its own, as they are for all
-- others. Answers all that hold now.
INSERT INTO punchcard.limits AS c (account_id, unfinished_jobs, unfinished_bytes, enqueues_per_minute)
SELECT $1, CASE WHEN $5 THEN $2 ELSE d.unfinished_jobs END, CASE WHEN $6 THEN $3 ELSE d.unfinished_bytes END,
       CASE WHEN $7 THEN $4 ELSE d.enqueues_per_minute END
FROM (VALUES (1)) one LEFT JOIN punchcard.limits d ON d.account_id = '00000000-0000-0000-0000-000000000000'
ON CONFLICT (account_id) DO UPDATE
SET unfinished_jobs = CASE WHEN $5 THEN excluded.unfinished_jobs ELSE c.unfinished_jobs END,
    unfinished_bytes = CASE WHEN $6 THEN excluded.unfinished_bytes ELSE c.unfinished_bytes END,
    enqueues_per_minute = CASE WHEN $7 THEN excluded.enqueues_per_minute ELSE c.enqueues_per_minute END
RETURNING c.unfinished_jobs, c.unfinished_bytes, c.enqueues_per_minute
