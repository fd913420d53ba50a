-- marked: how many of a batch bear the mark now ($2 rows after number $1), and a word that others bear: a
-- look at what an update did, and what triggers made of it.
SELECT count(*) FILTER (WHERE o.state = 'taken'),
       min(coalesce(o.word, 'nothing')) FILTER (WHERE o.state IS DISTINCT FROM 'taken')
FROM punchcard_old o
WHERE o.id = ANY (
    ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = 'take' AND s.n > $1 AND s.n <= $1 + $2))
