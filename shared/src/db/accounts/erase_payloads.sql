-- erase_payloads: takes the next step of an account's erasure; true if there is another to take now.
SELECT punchcard.erase_payloads($1)
