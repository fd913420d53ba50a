-- call_back: what somebody outside says of the run that waits for them: progress, or its end.
SELECT status, cancel_requested FROM punchcard.call_back($1, $2, $3, $4, $5, $6, $7, $8, $9)
