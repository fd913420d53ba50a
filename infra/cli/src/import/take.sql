-- take: a batch of what bears our mark still: $2 rows after number $1. What an old worker has written over is
-- its own. Accounts in their order, as `settle` locks them. Answers how many were queued.
SELECT count(*) FILTER (WHERE pg_temp.punchcard_take_job(t.job))
FROM (
    SELECT r AS job
    FROM punchcard_rows r
    WHERE r.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s
                            WHERE s.step = 'take' AND s.n > $1 AND s.n <= $1 + $2))
      AND r.state = 'taken' AND r.reason IS NULL AND NOT r.present
    ORDER BY r.account_id, r.created_at
    FOR UPDATE OF r SKIP LOCKED
) t
