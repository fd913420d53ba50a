-- enqueue: holds the price and queues the job, or tells which job this key bought before.
SELECT job_id, price, max_attempts, run_at, created_at, expires_at, replayed, wake_after, priority
FROM punchcard.enqueue($1, $2, $3::text::json, $4, $5, $6::text::timestamptz, $7::text::jsonb)
