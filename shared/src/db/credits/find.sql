-- find: an account's balance, at its source too; no row for an account that was never granted anything.
SELECT available, held FROM punchcard.balance($1)
