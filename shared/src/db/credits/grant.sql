-- grant: adds credits once for each key, perhaps to lapse at $5; the first grant creates the account.
-- What a spread account has on its other shares counts too.
SELECT (g.entry).entry AS id, (g.entry).kind::text AS kind, (g.entry).amount AS available_delta,
       0::bigint AS held_delta, (g.entry).available_after + o.available AS available_after,
       (g.entry).held_after + o.held AS held_after, (g.entry).job_id, (g.entry).idempotency_key,
       (g.entry).reason, (g.entry).created_at, g.replayed
FROM punchcard.grant_credits($1, $2, $3, $4, $5::text::timestamptz) g,
     (SELECT coalesce(sum(available), 0)::bigint AS available, coalesce(sum(held), 0)::bigint AS held
      FROM punchcard.accounts WHERE id = $1 AND share > 0) o
