-- mark: takes a batch from the old worker: $2 rows after number $1, if they are queued still and nobody holds
-- them. A worker that asks for queued rows finds them no more. Answers how many it found, how many it
-- changed, and what those that do not bear the mark now bear.
WITH next AS MATERIALIZED (
    SELECT o.id
    FROM pg_temp.punchcard_old o
    WHERE o.id = ANY (ARRAY(SELECT s.id FROM pg_temp.punchcard_survey s
                            WHERE s.step = 'take' AND s.n > $1 AND s.n <= $1 + $2))
      AND o.state = 'queued'
    FOR UPDATE OF o SKIP LOCKED
), marked AS (
    UPDATE pg_temp.punchcard_old o SET status = o.taken WHERE o.id = ANY (ARRAY(SELECT n.id FROM next n))
    RETURNING o.word, o.state
)
SELECT (SELECT count(*) FROM next), count(*),
       min(coalesce(m.word, 'nothing')) FILTER (WHERE m.state IS DISTINCT FROM 'taken')
FROM marked m
