-- enqueue: holds the price and queues the job, or answers the job that this key bought before.
SELECT (e.job).id, (e.job).account_id, (e.job).kind, (e.job).status, (e.job).price, (e.job).attempt,
       (e.job).max_attempts, (e.job).input::text, (e.job).output::text, (e.job).error::text,
       punchcard.rfc3339((e.job).run_at), punchcard.rfc3339((e.job).created_at),
       punchcard.rfc3339((e.job).started_at), punchcard.rfc3339((e.job).finished_at),
       punchcard.rfc3339((e.job).expires_at), (e.job).priority, e.replayed
FROM punchcard.enqueue($1, $2, $3::text::json, $4, $5, $6::text::timestamptz) e
