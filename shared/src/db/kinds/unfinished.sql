-- unfinished: of each of these kinds ($1) how many jobs are unfinished, how many of those run, and the
-- credits held for them.
SELECT k.name, count(q.job_id),
       count(q.job_id) FILTER (WHERE coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL),
       coalesce(sum(q.price), 0)::bigint
FROM unnest($1::text[]) k (name) LEFT JOIN punchcard.queue q ON q.kind = k.name
GROUP BY k.name ORDER BY k.name
