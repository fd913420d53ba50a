-- cancel: a queued job at once, a running one by asking; of one account ($2) or of any (NULL).
SELECT punchcard.cancel($1, $2)
