-- list_labeled: the same, but only jobs that have the label $6 and all of $7: found by the first, which is the index's order.
SELECT n.id, n.account_id, n.kind, n.status, n.price, n.attempt, n.max_attempts, n.input::text, n.output::text, n.error::text,
       n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at, n.priority, n.captured, n.crashes,
       n.cancel_requested_at, n.progress_percent, n.progress_message, n.progress_at, n.retry_of,
       (SELECT r.id FROM punchcard.jobs r WHERE r.retry_of = n.id), n.metadata::text, n.tags,
       (SELECT l.amount FROM punchcard.ledger l WHERE l.job_id = n.id AND l.kind = 'adjust'), n.waiting_until, n.webhook::text
FROM punchcard.labels w
JOIN punchcard.jobs_now n ON n.account_id = w.account_id AND n.id = w.job_id
WHERE w.account_id = $1 AND w.label = $6
  AND ($4::uuid IS NULL OR w.job_id < $4)
  AND ($2::text IS NULL OR n.status = $2)
  AND ($3::text IS NULL OR n.kind = $3)
  -- By its key, job by job: EXISTS would be free to read all labels of the account instead.
  AND NOT EXISTS (SELECT FROM unnest($7::text[]) o (label)
                  WHERE (SELECT l.job_id FROM punchcard.labels l
                         WHERE l.account_id = $1 AND l.label = o.label AND l.job_id = w.job_id) IS NULL)
ORDER BY w.job_id DESC
LIMIT $5
