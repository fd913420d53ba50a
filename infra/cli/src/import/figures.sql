-- figures: how many rows need what.
SELECT count(*) FILTER (WHERE step = 'copy' AND state = 'succeeded'),
       count(*) FILTER (WHERE step = 'copy' AND state = 'failed'),
       count(*) FILTER (WHERE step = 'copy' AND state = 'canceled'),
       count(*) FILTER (WHERE step = 'take' AND state = 'queued'),
       count(*) FILTER (WHERE step = 'take' AND state = 'taken'),
       count(*) FILTER (WHERE state = 'running' AND reason IS NULL),
       count(*) FILTER (WHERE present AND reason IS NULL),
       count(*) FILTER (WHERE step IS NOT NULL AND clamped),
       count(*) FILTER (WHERE step IS NOT NULL AND NOT input_given)
FROM punchcard_survey
