-- mark: takes a batch from the old worker: $2 rows after number $1, if they are queued still and nobody holds them. A
-- worker that asks for queued rows finds them no more. Answers how many it took.
WITH next AS MATERIALIZED (
    SELECT o.id
    FROM punchcard_old o
    WHERE o.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = 'take' AND s.n > $1 AND s.n <= $1 + $2))
      AND o.state = 'queued'
    FOR UPDATE OF o SKIP LOCKED
), marked AS (
    UPDATE punchcard_old o SET status = o.taken WHERE o.id = ANY (ARRAY(SELECT n.id FROM next n)) RETURNING 1
)
SELECT count(*) FROM marked
