-- revoke: the token of a name ($1) in one slot ($2) or, where no slot is said, its only one; all of them if
-- so said ($3). Answers the slots. Without a slot, no row where there are two.
DELETE FROM punchcard.service_tokens t
WHERE t.name = $1 AND CASE
    WHEN $2::smallint IS NOT NULL THEN t.slot = $2
    ELSE $3 OR NOT EXISTS (
        SELECT FROM punchcard.service_tokens o WHERE o.name = t.name AND o.slot <> t.slot) END
RETURNING t.slot
