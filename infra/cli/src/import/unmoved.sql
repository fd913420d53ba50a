-- unmoved: of what was to be taken over and is not in Punchcard: what it is now, and how many of each.
SELECT coalesce(r.state, 'unknown'), count(*)
FROM punchcard_rows r
WHERE r.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = 'take')) AND NOT r.present
GROUP BY 1 ORDER BY 1
