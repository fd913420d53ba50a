-- arrived: how many of a batch of a step ($3: $2 rows after number $1) are in Punchcard.
SELECT count(*) FROM punchcard_rows r
WHERE r.id = ANY (
    ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = $3 AND s.n > $1 AND s.n <= $1 + $2))
  AND r.present
