-- undelivered: messages that were given up, or whose last sending failed, newest first, of one account ($1)
-- or of any (NULL): up to $2 of them, older than the one of the id $3. The query of a URL may be a secret,
-- and is left out. Walks past 10,000 at most: then the last column says behind which the next page begins.
-- Without a message there is one row, of that alone.
WITH walked AS (
    SELECT * FROM (
        (SELECT b.id, b.account_id, b.job_id, b.event, b.url, b.attempt, b.next_at, b.created_at, b.error
         FROM punchcard.outbox b
         WHERE b.error IS NOT NULL AND b.id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         ORDER BY b.id DESC
         LIMIT 10000)
        UNION ALL
        (SELECT d.id, d.account_id, d.job_id, d.event, d.url, d.attempt, NULL, d.created_at, d.error
         FROM punchcard.deliveries d
         WHERE d.delivered_at IS NULL AND d.id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         ORDER BY d.id DESC
         LIMIT 10000)) d
    ORDER BY d.id DESC
    LIMIT 10000
), last AS (
    SELECT w.id FROM walked w ORDER BY w.id DESC OFFSET 9999
)
SELECT f.*, l.id
FROM (SELECT 1) one
LEFT JOIN last l ON true
LEFT JOIN (
    SELECT d.id, d.account_id, d.job_id, d.event::text, regexp_replace(coalesce(d.url, w.url), '[?].*', ''),
           d.attempt, d.next_at, d.created_at, d.error
    FROM walked d
    LEFT JOIN LATERAL (SELECT w.url FROM punchcard.webhooks w WHERE w.account_id = d.account_id LIMIT 1) w
        ON true
    WHERE ($1::uuid IS NULL OR d.account_id = $1)
      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = d.account_id)
    ORDER BY d.id DESC
    LIMIT $2) f ON true
ORDER BY f.id DESC
