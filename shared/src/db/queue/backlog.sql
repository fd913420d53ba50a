-- backlog: how many jobs are due, $1 at most, and how many running, of kinds that SQS dispatches and whose
-- time limit fits into $2 seconds.
WITH dispatched AS MATERIALIZED (
    SELECT array_agg(k.name) AS names FROM punchcard.kinds k
    WHERE k.dispatch = 'sqs' AND k.retired_at IS NULL AND k.timeout_seconds <= $2
)
SELECT (SELECT count(*) FROM (
            SELECT FROM generate_series(-10, 10) AS level (priority), LATERAL (
                SELECT FROM punchcard.queue q
                WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.priority = level.priority
                  AND q.run_at <= now() AND q.kind = ANY ((SELECT names FROM dispatched)::text[])) due
            LIMIT $1) counted),
       -- Leases lapse within the 15 minutes of the longest invocation; few queued jobs expire as soon.
       (SELECT count(*) FROM punchcard.queue q
        WHERE coalesce(q.lease_expires_at, q.waiting_until, q.expires_at)
              BETWEEN now() AND now() + interval '16 minutes'
          AND q.lease_expires_at IS NOT NULL AND q.kind = ANY ((SELECT names FROM dispatched)::text[]))
