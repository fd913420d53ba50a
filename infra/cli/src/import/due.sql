-- due: of what is to be taken over, how many jobs are due at once and how many later; of the latter when the
-- first is due, and in how many seconds.
SELECT count(*) FILTER (WHERE coalesce(run_at, now()) <= now()), count(*) FILTER (WHERE run_at > now()),
       to_char(min(run_at) FILTER (WHERE run_at > now()), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       extract(epoch FROM min(run_at) FILTER (WHERE run_at > now()) - now())::bigint
FROM punchcard_survey WHERE step = 'take'
