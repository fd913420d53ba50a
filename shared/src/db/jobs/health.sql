-- health: how long the oldest due job has been waiting, in seconds; NULL when none is.
SELECT extract(epoch FROM now() - min(run_at))::double precision
FROM punchcard.jobs WHERE status = 'queued' AND run_at <= now()
