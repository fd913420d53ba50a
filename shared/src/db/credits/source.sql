-- source: where credits come from, if not from grants; how many wait to be returned there, and how many are
-- held.
SELECT s.balances, s.account_column, s.balance_column, s.mover, coalesce(sum(b.available), 0)::bigint,
       coalesce(sum(b.held), 0)::bigint
FROM punchcard.credit_source s LEFT JOIN punchcard.balances b ON true
GROUP BY s.balances, s.account_column, s.balance_column, s.mover
