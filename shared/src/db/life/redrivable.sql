-- redrivable: the dead letters that were not retried yet, in the order of a redrive: of a kind ($1), an error code ($2), an
-- account ($3), finished within a time ($4, $5).
SELECT o.job_id, o.account_id, j.kind, j.price, o.captured, o.attempt, o.crashes, o.finished_at, o.error::text,
       NULL::uuid
FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.account_id = o.account_id AND j.id = o.job_id
WHERE o.status = 'failed'
  AND ($1::text IS NULL OR j.kind = $1)
  AND ($2::text IS NULL OR o.error ->> 'code' = $2)
  AND ($3::uuid IS NULL OR o.account_id = $3)
  AND o.finished_at >= coalesce($4::text::timestamptz, '-infinity')
  AND o.finished_at < coalesce($5::text::timestamptz, 'infinity')
  AND NOT EXISTS (SELECT FROM punchcard.jobs r WHERE r.retry_of = o.job_id)
ORDER BY o.finished_at, o.job_id
LIMIT $6
