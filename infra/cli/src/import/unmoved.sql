-- unmoved: of what was to be taken over and is not in Punchcard: how many bear our mark, and how many do not.
SELECT count(*) FILTER (WHERE r.state = 'taken'), count(*) FILTER (WHERE r.state IS DISTINCT FROM 'taken')
FROM punchcard_rows r
WHERE r.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = 'take')) AND NOT r.present
