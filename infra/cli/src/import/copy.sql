-- copy: a batch of final jobs, as history: $2 rows after number $1. Their credits were settled where they were bought,
-- so their price is 0. Answers how many are new. An array of ids, not a join: only these rows are to be looked into.
WITH next AS MATERIALIZED (
    SELECT r.*
    FROM punchcard_rows r
    WHERE r.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s WHERE s.step = 'copy' AND s.n > $1 AND s.n <= $1 + $2))
      AND r.state IN ('succeeded', 'failed', 'canceled') AND r.reason IS NULL AND NOT r.present
), bought AS (
    INSERT INTO punchcard.jobs (account_id, id, kind, price, priority, max_attempts, scheduled_at, expires_at,
                                created_at, idempotency_key, request_hash, input)
    SELECT n.account_id, n.job_id, n.kind, 0, n.priority, 1, n.created_at, n.finished_at, n.created_at, n.key,
           CASE WHEN n.key IS NOT NULL
                THEN punchcard.request_hash(n.key, concat_ws(E'\n', n.kind, n.priority), n.input) END,
           n.input
    FROM next n
    ON CONFLICT DO NOTHING
    RETURNING id
), ended AS (
    INSERT INTO punchcard.outcomes (job_id, account_id, status, attempt, started_at, finished_at, output, error)
    SELECT n.job_id, n.account_id, n.state, CASE WHEN n.state = 'canceled' AND n.started IS NULL THEN 0 ELSE 1 END,
           n.started, n.finished_at, CASE n.state WHEN 'succeeded' THEN coalesce(n.output, 'null') END,
           CASE n.state WHEN 'failed' THEN json_build_object(
               'code', 'imported', 'message', left(coalesce(nullif(n.error_message, ''), 'nothing was said'), 1000),
               'attempt', 1) END
    FROM next n JOIN bought b ON b.id = n.job_id
    RETURNING job_id
)
SELECT count(*) FROM ended
