-- unclaimed: kinds whose jobs have been due for more than ten minutes while none of them runs.
SELECT format('nobody claims the kind %s: %s jobs have been due for up to %s minutes, and none is running',
              w.kind, w.jobs, floor(extract(epoch FROM now() - w.since) / 60))
FROM (SELECT q.kind, count(*) AS jobs, min(q.run_at) AS since FROM punchcard.queue q
      WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL
        AND q.run_at < now() - interval '10 minutes'
      GROUP BY q.kind) w
WHERE NOT EXISTS (SELECT FROM punchcard.queue r WHERE r.kind = w.kind AND r.lease_expires_at > now())
ORDER BY w.since LIMIT 20
