-- failed: the dead letters, newest first: of a kind ($1), an error code ($2), an account ($3), finished
-- within a time ($4, $5); up to $6 of them, older than the one that finished at $7 and has the id $8. The
-- last two columns say behind which the next page begins, if this one came short and there may be more.
-- Without a job there is one row, of these two alone.
SELECT job_id, account_id, kind, price, captured, attempt, crashes, finished_at, error::text, retried_as,
       next_at, next_id
FROM punchcard.find_failed($1, $2, $3, $4::text::timestamptz, $5::text::timestamptz, $6,
                           $7::text::timestamptz, $8)
ORDER BY finished_at DESC, job_id DESC
