-- enqueue_batch: holds the price of each and queues up to 1,000 jobs, or answers the jobs that this key
-- bought before.
SELECT id, kind, status, price, replayed, wake_after FROM punchcard.enqueue_batch($1, $2::text::json, $3)
