-- ended_runs: of these runs ($1 the jobs, $2 their lease tokens), those whose end is recorded, whatever it was.
SELECT v.job_id, v.lease_token
FROM unnest($1::uuid[], $2::bigint[]) AS v (job_id, lease_token)
WHERE EXISTS (SELECT FROM punchcard.runs r WHERE r.job_id = v.job_id AND r.number = v.lease_token)
