-- entries: an account's ledger, newest first, older than the cursor ($2): up to $3 entries, but not what was shifted between its
-- shares, of which it walks past 10,000 at most. The last column is where the next page begins, if there may be one. Without an
-- entry there is one row, of that alone.
WITH page AS MATERIALIZED (
    SELECT w.*
    FROM (SELECT e.* FROM punchcard.entries e
          WHERE e.account_id = $1 AND e.id < coalesce($2::bigint, 9223372036854775807)
          ORDER BY e.id DESC LIMIT 10000) w
    WHERE w.kind <> 'shift' ORDER BY w.id DESC LIMIT $3
)
SELECT p.id, p.kind::text, p.available_delta, p.held_delta, p.available_after, p.held_after, p.job_id, p.idempotency_key, p.reason,
       p.created_at, p.share,
       CASE WHEN (SELECT count(*) FROM page) = $3 THEN (SELECT min(q.id) FROM page q)
            ELSE (SELECT l.id FROM punchcard.ledger l
                  WHERE l.account_id = $1 AND l.id < coalesce($2::bigint, 9223372036854775807)
                  ORDER BY l.id DESC OFFSET 9999 LIMIT 1) END
FROM (SELECT 1) one LEFT JOIN page p ON true
ORDER BY p.id DESC
