-- settle_deliveries: records what became of messages that were sent, of each attempt once; answers those that
-- are recorded, and those that somebody else holds.
SELECT id, out_of_reach FROM punchcard.settle_deliveries($1, $2, $3, $4, $5, $6, $7)
