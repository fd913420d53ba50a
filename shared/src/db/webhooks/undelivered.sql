-- undelivered: messages that were given up, or whose last sending failed, newest first, of one account ($1) or of any (NULL); the
-- query of a URL may be a secret, and is left out.
SELECT d.id, d.account_id, d.job_id, d.event, regexp_replace(coalesce(d.url, w.url), '[?].*', ''),
       d.attempt - d.put_back, d.next_at, d.created_at, d.error
FROM punchcard.deliveries d LEFT JOIN punchcard.webhooks w ON w.account_id = d.account_id
WHERE d.delivered_at IS NULL AND d.error IS NOT NULL AND ($1::uuid IS NULL OR d.account_id = $1)
ORDER BY d.id DESC
LIMIT $2
