-- list: an account's jobs, newest first, older than the cursor ($4), perhaps of some statuses ($2, with
-- commas between them) or one kind ($3), bought at $8 or later and before $9, and with all of the labels $5:
-- up to $6 of them, and no more than have $7 bytes in all; with their inputs ($10) and outputs ($11) or
-- without. The last two columns are where the next page begins, if there is one, and how many jobs were
-- found: more than are answered if they have too many bytes. Without a job there is one row, of these two
-- alone.
SELECT p.id, p.account_id, p.kind, p.status, p.price, p.attempt, p.max_attempts,
       CASE WHEN $10 THEN p.input::text END, CASE WHEN $11 THEN p.output::text END, p.error::text, p.run_at,
       p.created_at, p.started_at, p.finished_at, p.expires_at,
       p.priority, p.captured, p.crashes, p.cancel_requested_at, p.progress_percent, p.progress_message,
       p.progress_at, p.retry_of,
       (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = p.id), p.metadata::text, p.tags,
       (SELECT m.amount FROM punchcard.movements m WHERE m.job_id = p.id), p.waiting_until, p.webhook::text,
       f.next_before, cardinality(f.ids)
FROM punchcard.find_jobs($1, $2, $3, $5, $4, $6, $8::text::timestamptz, $9::text::timestamptz) f
LEFT JOIN LATERAL punchcard.show_jobs($1, f.ids, $7, $10, $11) p ON true
ORDER BY p.id DESC
