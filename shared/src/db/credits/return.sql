-- return: gives what is available back to the team's own credits; answers how many accounts it was.
SELECT punchcard.return_credits()
