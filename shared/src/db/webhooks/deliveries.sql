-- deliveries: what is or was to be said of a job, of one account ($2) or of any (NULL), oldest first: up to
-- $4 after the one of the id $3. None of an account that is erased, which is asked once for all of them.
SELECT d.id, d.event::text, d.url, d.attempt - d.put_back, d.next_at, d.created_at, d.delivered_at, d.error
FROM punchcard.messages d
WHERE d.job_id = $1 AND d.event <> 'cancel' AND ($2::uuid IS NULL OR d.account_id = $2)
  AND ($3::uuid IS NULL OR d.id > $3)
  AND NOT EXISTS (
      SELECT FROM punchcard.erasures e
      WHERE e.account_id = coalesce($2, (SELECT account_id FROM punchcard.queue WHERE job_id = $1),
                                    (SELECT account_id FROM punchcard.outcomes WHERE job_id = $1)))
ORDER BY d.id
LIMIT $4
