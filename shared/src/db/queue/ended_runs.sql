-- ended_runs: of these runs ($1 the jobs, $2 their lease tokens), those that have ended, however: what is
-- handed back, and a run after the first thousand, leaves no trace but that its lease is no more.
SELECT v.job_id, v.lease_token
FROM unnest($1::uuid[], $2::bigint[]) AS v (job_id, lease_token)
WHERE EXISTS (SELECT FROM punchcard.runs r WHERE r.job_id = v.job_id AND r.number = v.lease_token)
   OR EXISTS (SELECT FROM punchcard.queue q
              WHERE q.job_id = v.job_id AND (q.lease_token > v.lease_token OR q.lease_expires_at IS NULL))
