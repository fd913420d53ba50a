-- spread: deals an account's credits over this many shares, so that as many buyers go at once.
SELECT punchcard.spread_account($1, $2)
