-- redrivable: the dead letters that were not retried yet, in the order of a redrive: of a kind ($1), an error
-- code ($2), an account ($3), finished within a time ($4, $5); up to $6 of them, behind the one that finished
-- at $7 and has the id $8. Walks past 10,000 at most, and says so as `failed` does.
WITH walked AS (
    SELECT o.job_id, o.account_id, o.captured, o.attempt, o.crashes, o.finished_at, o.error
    FROM punchcard.outcomes o
    WHERE o.status = 'failed'
      AND o.finished_at >= coalesce($4::text::timestamptz, '-infinity')
      AND o.finished_at < coalesce($5::text::timestamptz, 'infinity')
      AND (o.finished_at, o.job_id) > (coalesce($7::text::timestamptz, '-infinity'),
                                       coalesce($8::uuid, '00000000-0000-0000-0000-000000000000'))
    ORDER BY o.finished_at, o.job_id
    LIMIT 10000
), last AS (
    SELECT w.finished_at, w.job_id FROM walked w ORDER BY w.finished_at, w.job_id OFFSET 9999
)
SELECT f.*, l.finished_at, l.job_id
FROM (SELECT 1) one
LEFT JOIN last l ON true
LEFT JOIN (
    SELECT w.job_id, w.account_id, j.kind, j.price, w.captured, w.attempt, w.crashes, w.finished_at,
           w.error::text, NULL::uuid
    FROM walked w, LATERAL (SELECT j.kind, j.price FROM punchcard.jobs j
                            WHERE j.account_id = w.account_id AND j.id = w.job_id LIMIT 1) j
    WHERE ($1::text IS NULL OR j.kind = $1)
      AND CASE WHEN $2::text IS NULL THEN w.error ->> 'code' IS DISTINCT FROM 'imported'
               ELSE w.error ->> 'code' = $2 END
      AND ($3::uuid IS NULL OR w.account_id = $3)
      AND (SELECT r.retried_as FROM punchcard.retries r WHERE r.job_id = w.job_id) IS NULL
    ORDER BY w.finished_at, w.job_id
    LIMIT $6) f ON true
ORDER BY f.finished_at, f.job_id
