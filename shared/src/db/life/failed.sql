-- failed: the dead letters, newest first: of a kind ($1), an error code ($2), an account ($3), finished
-- within a time ($4, $5); up to $6 of them, older than the one that finished at $7 and has the id $8. Walks
-- past 10,000 at most: then the last two columns say behind which the next page begins. Without a job there
-- is one row, of these two alone.
WITH walked AS (
    SELECT o.job_id, o.account_id, o.captured, o.attempt, o.crashes, o.finished_at, o.error
    FROM punchcard.outcomes o
    WHERE o.status = 'failed'
      AND o.finished_at >= coalesce($4::text::timestamptz, '-infinity')
      AND o.finished_at < coalesce($5::text::timestamptz, 'infinity')
      AND (o.finished_at, o.job_id) < (coalesce($7::text::timestamptz, 'infinity'),
                                       coalesce($8::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    ORDER BY o.finished_at DESC, o.job_id DESC
    LIMIT 10000
), last AS (
    SELECT w.finished_at, w.job_id FROM walked w ORDER BY w.finished_at DESC, w.job_id DESC OFFSET 9999
)
SELECT f.*, l.finished_at, l.job_id
FROM (SELECT 1) one
LEFT JOIN last l ON true
LEFT JOIN (
    SELECT w.job_id, w.account_id, j.kind, j.price, w.captured, w.attempt, w.crashes, w.finished_at,
           w.error::text, (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = w.job_id)
    -- By their keys, one by one.
    FROM walked w, LATERAL (SELECT j.kind, j.price FROM punchcard.jobs j
                            WHERE j.account_id = w.account_id AND j.id = w.job_id LIMIT 1) j
    WHERE ($1::text IS NULL OR j.kind = $1)
      AND ($2::text IS NULL OR w.error ->> 'code' = $2)
      AND ($3::uuid IS NULL OR w.account_id = $3)
    ORDER BY w.finished_at DESC, w.job_id DESC
    LIMIT $6) f ON true
ORDER BY f.finished_at DESC, f.job_id DESC
