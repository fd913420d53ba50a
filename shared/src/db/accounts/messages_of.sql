-- messages_of: what is or was to be said of the jobs $1 of an account ($2); nothing, if it is erased.
SELECT d.id, d.event::text, d.url, d.attempt - d.put_back, d.next_at, d.created_at, d.delivered_at, d.error,
       d.job_id
FROM punchcard.messages d
WHERE d.job_id = ANY ($1) AND d.event <> 'cancel'
  AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = $2)
ORDER BY d.job_id DESC, d.id
