-- grant: adds credits once for each key; the first grant creates the account.
SELECT (g.entry).id, (g.entry).kind::text, (g.entry).amount, 0::bigint, (g.entry).available_after,
       (g.entry).held_after, (g.entry).job_id, (g.entry).idempotency_key, (g.entry).reason,
       (g.entry).created_at, g.replayed
FROM punchcard.grant_credits($1, $2, $3, $4) g
