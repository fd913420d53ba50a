-- refund: gives back what was captured for a job, once.
SELECT account_id, amount FROM punchcard.refund($1, $2)
