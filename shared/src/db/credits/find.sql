-- find: an account's balance; no row for an account that was never granted anything.
SELECT available, held FROM punchcard.balances WHERE account_id = $1
