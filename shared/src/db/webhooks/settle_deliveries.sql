-- settle_deliveries: records what became of messages that were sent, each fenced by its attempt; answers those it recorded, and
-- those that somebody else holds.
SELECT id, out_of_reach FROM punchcard.settle_deliveries($1, $2, $3, $4, $5, $6)
