-- redrive: retries failed jobs in bulk, as filtered, at a rate; answers what became of each.
SELECT job_id, finished_at, retried_as, refused, price
FROM punchcard.redrive($1, $2, $3, $4::text::timestamptz, $5::text::timestamptz, $6, $7, $8,
                       $9::text::timestamptz, $10)
ORDER BY finished_at, job_id
