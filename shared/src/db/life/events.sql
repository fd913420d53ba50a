-- events: up to $4 transitions of a job ($1), oldest first, after the one numbered $3; of one account ($2) or
-- of any (NULL). 1 is its purchase. A run has the two numbers 2 x lease_token and the next, for its start and
-- its end; an end without a run has the one that the next run would have had. So no number ever changes,
-- whatever becomes of the job. By $1 in each part: joined with `job`, the planner reads all of `runs`.
WITH job AS MATERIALIZED (
    SELECT n.status, n.created_at FROM punchcard.jobs_now n
    WHERE n.id = $1
      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = n.account_id)
      AND n.account_id = coalesce($2::uuid, (SELECT account_id FROM punchcard.queue WHERE job_id = $1),
                                  (SELECT account_id FROM punchcard.outcomes WHERE job_id = $1))
), event AS (
    SELECT 1::bigint AS number, 'queued' AS status, j.created_at AS at, 0::smallint AS attempt,
           NULL AS reason, NULL::json AS error
    FROM job j
    UNION ALL
    SELECT 2 * r.number, 'running', r.started_at, r.attempt, NULL, NULL
    FROM job j, punchcard.runs r
    WHERE r.job_id = $1 AND r.started_at IS NOT NULL
    UNION ALL
    SELECT 2 * r.number + 1, CASE WHEN f.final THEN r.ended ELSE 'queued' END, r.ended_at, r.attempt,
           CASE WHEN NOT f.final THEN r.ended END, r.error
    FROM job j, punchcard.runs r, LATERAL (SELECT r.ended IN ('succeeded', 'failed', 'canceled') AS final) f
    WHERE r.job_id = $1
    UNION ALL
    SELECT 2 * q.lease_token, 'running', q.run_started_at, q.attempt, NULL, NULL
    FROM job j, punchcard.queue q
    WHERE q.job_id = $1 AND j.status = 'running'
    UNION ALL
    SELECT 2 * o.lease_token + 2, o.status::text, o.finished_at, o.attempt, NULL,
           CASE WHEN o.status = 'failed' THEN o.error END
    FROM job j, punchcard.outcomes o
    WHERE o.job_id = $1 AND o.run_started_at IS NULL
)
SELECT e.number, e.status, e.at, e.attempt, e.reason, e.error::text
FROM event e
WHERE e.number > $3
ORDER BY e.number
LIMIT $4
