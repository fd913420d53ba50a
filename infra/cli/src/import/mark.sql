-- mark: takes a batch from the old worker: $2 rows after number $1, if their status is still what it was and nobody
-- holds them. A worker that asks for queued rows finds them no more. Answers how many it took.
WITH next AS MATERIALIZED (
    SELECT o.id
    FROM punchcard_survey s JOIN punchcard_old o ON o.id = s.id
    WHERE s.step = 'take' AND s.state = 'queued' AND s.n > $1 AND s.n <= $1 + $2 AND o.word = s.word
    FOR UPDATE OF o SKIP LOCKED
), marked AS (
    UPDATE punchcard_old o SET status = o.taken FROM next WHERE o.id = next.id RETURNING 1
)
SELECT count(*) FROM marked
