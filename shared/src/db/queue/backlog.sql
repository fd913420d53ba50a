-- backlog: how many jobs are due, $1 at most, and how many running, of kinds that SQS dispatches and whose
-- time limit fits into $2 seconds.
WITH dispatched AS MATERIALIZED (
    SELECT k.name FROM punchcard.kinds k
    WHERE k.dispatch = 'sqs' AND k.retired_at IS NULL AND k.timeout_seconds <= $2
)
SELECT (SELECT count(*) FROM (
            SELECT FROM dispatched d CROSS JOIN generate_series(-10, 10) AS level (priority)
            CROSS JOIN LATERAL (
                SELECT FROM punchcard.queue q
                WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = d.name
                  AND q.priority = level.priority AND q.run_at <= now()
                LIMIT $1) due
            LIMIT $1) counted),
       -- Leases lapse within the 15 minutes of the longest invocation; few queued jobs expire as soon.
       (SELECT count(*) FROM punchcard.queue q
        WHERE coalesce(q.lease_expires_at, q.waiting_until, q.expires_at)
              BETWEEN now() AND now() + interval '16 minutes'
          AND q.lease_expires_at IS NOT NULL AND q.kind = ANY (ARRAY(SELECT name FROM dispatched)))
