-- health: how long the oldest due job has been waiting, in seconds; NULL when none is. And what of upkeep has
-- to wait.
SELECT extract(epoch FROM now() - min(greatest(oldest.run_at, timestamptz 'epoch')))::double precision,
       ARRAY(SELECT u.task FROM punchcard.upkeep u
             WHERE u.error IS NOT NULL
                OR u.task = 'erasures' AND EXISTS (
                       SELECT FROM punchcard.erasures e
                       WHERE e.done_at IS NULL AND e.error IS NOT NULL
                         AND e.asked_at < now() - interval '1 hour')
                OR u.task = 'expiries' AND EXISTS (
                       SELECT FROM punchcard.dated_accounts d
                       WHERE d.error IS NOT NULL AND d.dealt_at < now() - interval '1 hour')
             ORDER BY u.task)
FROM punchcard.kinds k CROSS JOIN generate_series(-10, 10) AS level (priority) CROSS JOIN LATERAL (
    SELECT q.run_at FROM punchcard.queue q
    WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = k.name
      AND q.priority = level.priority AND q.run_at <= now()
    ORDER BY q.run_at LIMIT 1) oldest
