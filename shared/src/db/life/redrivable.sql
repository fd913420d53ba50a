-- redrivable: the dead letters that were not retried yet, in the order of a redrive: of a kind ($1), an error
-- code ($2), an account ($3), finished within a time ($4, $5); up to $6 of them, behind the one that finished
-- at $7 and has the id $8. Says where the next page begins as `failed` does.
SELECT job_id, account_id, kind, price, captured, attempt, crashes, finished_at, error::text, NULL::uuid,
       next_at, next_id
FROM punchcard.find_redrivable($1, $2, $3, $4::text::timestamptz, $5::text::timestamptz, $6,
                               $7::text::timestamptz, $8)
ORDER BY finished_at, job_id
