-- set_caps: bounds an account, or with zeros all others; NULL is no bound.
SELECT punchcard.set_caps($1, $2, $3, $4)
