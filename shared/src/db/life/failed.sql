-- failed: the dead letters, newest first: of a kind ($1), an error code ($2), an account ($3), finished within a time ($4, $5).
SELECT o.job_id, o.account_id, j.kind, j.price, o.captured, o.attempt, o.crashes, o.finished_at, o.error::text,
       (SELECT r.id FROM punchcard.jobs r WHERE r.retry_of = o.job_id)
FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.account_id = o.account_id AND j.id = o.job_id
WHERE o.status = 'failed'
  AND ($1::text IS NULL OR j.kind = $1)
  AND ($2::text IS NULL OR o.error ->> 'code' = $2)
  AND ($3::uuid IS NULL OR o.account_id = $3)
  AND o.finished_at >= coalesce($4::text::timestamptz, '-infinity')
  AND o.finished_at < coalesce($5::text::timestamptz, 'infinity')
ORDER BY o.finished_at DESC, o.job_id DESC
LIMIT $6
