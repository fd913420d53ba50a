-- figures: how many rows need what.
SELECT count(*) FILTER (WHERE s.step = 'copy' AND s.state = 'succeeded'),
       count(*) FILTER (WHERE s.step = 'copy' AND s.state = 'failed'),
       count(*) FILTER (WHERE s.step = 'copy' AND s.state = 'canceled'),
       count(*) FILTER (WHERE s.step = 'take' AND s.state = 'queued'),
       count(*) FILTER (WHERE s.step = 'take' AND s.state = 'taken'),
       count(*) FILTER (WHERE s.state = 'running' AND s.reason IS NULL),
       count(*) FILTER (WHERE s.present AND s.reason IS NULL),
       count(*) FILTER (WHERE s.step IS NOT NULL AND s.clamped),
       count(*) FILTER (WHERE s.step IS NOT NULL AND NOT s.input_given),
       count(*) FILTER (WHERE s.step = 'take' AND s.priority > k.max_priority)
FROM punchcard_survey s LEFT JOIN punchcard.kinds k ON k.name = s.kind
