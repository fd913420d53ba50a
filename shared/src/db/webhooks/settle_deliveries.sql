-- settle_deliveries: records what became of messages that were sent, each fenced by its attempt; answers those it recorded.
SELECT id FROM punchcard.settle_deliveries($1, $2, $3, $4, $5, $6)
