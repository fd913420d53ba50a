-- deliveries: what is or was to be said of a job, oldest first.
SELECT d.id, d.event, coalesce(d.url, w.url), d.attempt, d.next_at, d.created_at, d.delivered_at, d.error
FROM punchcard.deliveries d LEFT JOIN punchcard.webhooks w ON w.account_id = d.account_id
WHERE d.job_id = $1 AND d.event <> 'cancel' AND ($2::uuid IS NULL OR d.account_id = $2)
ORDER BY d.id
