-- keep_up: a step of a task of upkeep ($1), which is due every $2 seconds; whether there is another step.
SELECT punchcard.keep_up($1, $2)
