-- retry: buys a failed or canceled job once more, as a new job; of one account ($2) or of any (NULL).
SELECT job_id, account_id, wake_after FROM punchcard.retry($1, $2)
