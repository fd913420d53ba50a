-- survey: every row as it is now, with the step that it needs (`copy` as history, `take` over) and its number
-- there: looked at once, so that a batch need not look for its rows. Of those to take the queued come first,
-- then the taken.
CREATE TEMPORARY TABLE punchcard_survey AS
SELECT s.*, row_number() OVER (PARTITION BY s.step ORDER BY s.state, s.created_at, s.source_id) AS n
FROM (
    SELECT f.*, CASE WHEN f.present OR f.reason IS NOT NULL THEN NULL
                     WHEN f.state IN ('queued', 'taken') THEN 'take'
                     WHEN f.state IN ('succeeded', 'failed', 'canceled') THEN 'copy' END AS step
    FROM (
        SELECT r.id, r.source_id, r.job_id, r.word, r.state, r.kind, r.clamped, r.created_at, r.run_at,
               r.input_given, r.present, r.priority,
               -- A key was perhaps unique in another way than an account's.
               CASE WHEN r.reason IS NULL AND NOT r.present AND r.state <> 'running' AND r.key IS NOT NULL
                         AND row_number() OVER (PARTITION BY r.account_id, r.key,
                                                             r.reason IS NULL AND NOT r.present
                                                             AND r.state <> 'running'
                                                ORDER BY r.created_at, r.source_id) > 1
                    THEN 'its key is that of another row' ELSE r.reason END AS reason
        FROM punchcard_rows r
    ) f
) s
