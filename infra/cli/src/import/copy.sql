-- copy: a batch of final jobs, as history: $2 rows after number $1. Their credits were settled where they
-- were bought, so their price is 0. Answers how many are new. An array of ids, not a join: only these rows
-- are to be looked into.
WITH next AS MATERIALIZED (
    SELECT r.*
    FROM punchcard_rows r
    WHERE r.id = ANY (ARRAY(SELECT s.id FROM punchcard_survey s
                            WHERE s.step = 'copy' AND s.n > $1 AND s.n <= $1 + $2))
      AND r.state IN ('succeeded', 'failed', 'canceled') AND r.reason IS NULL AND NOT r.present
), keyed AS (
    INSERT INTO punchcard.idempotency_keys (account_id, key, request_hash, job_id)
    SELECT n.account_id, punchcard.key_digest(n.key),
           punchcard.request_hash(n.key, concat_ws(E'\n', n.kind, n.priority), n.input), n.job_id
    FROM next n WHERE n.key IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING job_id
), new AS MATERIALIZED (
    SELECT n.* FROM next n WHERE n.key IS NULL OR n.job_id IN (SELECT k.job_id FROM keyed k)
), payer AS MATERIALIZED (
    -- Each job has two numbers of its account's, though it moves nothing: for its row, and for its end.
    INSERT INTO punchcard.accounts AS a (id, entries)
    SELECT n.account_id, 2 * count(*) FROM new n GROUP BY n.account_id ORDER BY n.account_id
    ON CONFLICT (id, share) DO UPDATE SET entries = a.entries + excluded.entries
    RETURNING a.id, a.entries, a.available, a.held
), numbered AS MATERIALIZED (
    SELECT n.*, p.available, p.held, p.entries - 2 * count(*) OVER (PARTITION BY n.account_id)
                + 2 * row_number() OVER (PARTITION BY n.account_id ORDER BY n.created_at, n.job_id) AS entry
    FROM new n JOIN payer p ON p.id = n.account_id
), bought AS (
    INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, scheduled_at,
                                expires_at, created_at, share, priority, max_attempts, kind, input)
    SELECT n.account_id, n.job_id, 0, n.entry - 1, n.available, n.held, n.created_at, n.finished_at,
           n.created_at, 0, n.priority, 1, n.kind, n.input
    FROM numbered n
), ended AS (
    INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured,
                                    status, attempt, started_at, finished_at, output, error)
    SELECT n.job_id, n.account_id, 0, n.entry, n.available, n.held, 0, n.state::punchcard.final_status,
           CASE WHEN n.state = 'canceled' AND n.started IS NULL THEN 0 ELSE 1 END,
           n.started, n.finished_at, CASE n.state WHEN 'succeeded' THEN coalesce(n.output, 'null') END,
           CASE n.state WHEN 'failed' THEN json_build_object(
               'code', 'imported',
               'message', left(coalesce(nullif(n.error_message, ''), 'nothing was said'), 1000),
               'attempt', 1) END
    FROM numbered n
    RETURNING job_id
)
SELECT count(*) FROM ended
