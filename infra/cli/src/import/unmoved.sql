-- unmoved: of what was to be taken over and is not in Punchcard: how many bear our mark, and how many do not.
SELECT count(*) FILTER (WHERE r.state = 'taken'), count(*) FILTER (WHERE r.state IS DISTINCT FROM 'taken')
FROM punchcard_survey s JOIN punchcard_rows r ON r.id = s.id
WHERE s.step = 'take' AND NOT r.present
