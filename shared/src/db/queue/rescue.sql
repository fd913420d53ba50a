-- rescue: takes back up to $1 jobs that have lapsed. Past its life a job fails; a job whose lease expired is
-- queued again at once (the lease was delay enough), or fails when its attempts are used up.
WITH lapsed AS MATERIALIZED (
    SELECT q.job_id, q.lease_token, q.attempt,
           q.expires_at <= now() AS expired, q.attempt >= q.max_attempts AS used_up
    FROM punchcard.queue q
    WHERE coalesce(q.lease_expires_at, q.expires_at) <= now()
    ORDER BY coalesce(q.lease_expires_at, q.expires_at)
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
), verdict AS (
    SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens,
           array_agg(CASE WHEN expired OR used_up THEN 'fail' ELSE 'retry' END) AS verdicts,
           array_agg(0::double precision) AS delays, array_agg(NULL::text) AS outputs,
           array_agg(CASE WHEN expired
               THEN json_build_object('code', 'expired', 'message', 'not finished within its life', 'attempt', attempt)
               ELSE json_build_object('code', 'lease_expired', 'message',
                    'the worker did not report before its lease expired', 'attempt', attempt) END::text) AS errors
    FROM lapsed
)
SELECT s.job_id, s.status
FROM verdict v, punchcard.settle(v.ids, v.tokens, v.verdicts, v.delays, v.outputs, v.errors, true) s
WHERE v.ids IS NOT NULL
