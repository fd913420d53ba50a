-- constraints: what is checked at the end of a transaction is checked now.
SET CONSTRAINTS ALL IMMEDIATE
