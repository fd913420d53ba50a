-- source: where credits come from, if not from grants, and how many wait to be returned there.
SELECT s.balances, s.account_column, s.balance_column, s.mover,
       (SELECT coalesce(sum(a.available), 0)::bigint FROM punchcard.accounts a) AS waiting
FROM punchcard.credit_source s
