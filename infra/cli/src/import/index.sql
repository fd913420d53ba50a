-- index: finds a batch.
CREATE INDEX punchcard_survey_steps ON punchcard_survey (step, n)
