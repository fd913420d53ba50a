-- Settles runs in one statement: the job's status, the ledger entries and the balance move together. Verdicts:
--   complete  succeeded, with its output             retry   queued again after p_delays seconds
--   fail      failed                                 snooze  the same, the attempt not counted
--   reject    failed, and its input is to blame      crash   the same, a crash counted; failed if that was the last
--   cancel    canceled, as was asked for             yield   queued again at once, the attempt not counted
--   overdue   failed: nobody called back in time     return  queued as it was: it never started
--   wait      running without a lease: somebody outside calls back within p_delays seconds
-- A job that is to be canceled is not queued again, but canceled, and one that has no attempt left fails. What succeeds, or
-- fails for good, does.
-- p_outputs are also what a run that goes on later saved for it. p_used are the credits that a metered job used; NULL: all.
-- Each verdict needs its lease: same token, not expired. p_rescue is for those that hold the row's lock: `rescue`, which takes
-- back what has lapsed, `cancel` and `call_back`.
-- What somebody else holds, a job's row or its account's, is waited for for 200 ms; then all of it is refused (55P03) and can be
-- sent again with p_patience, a time in milliseconds: then what is still held after it is left out, and answered with a NULL
-- as its status. A batch that nobody is in the way of pays nothing for that (ADR 15).
-- Answers the jobs it settled, and whether somebody is to be told of it; whoever is missing had lost its lease, and nothing
-- of it was written. Raises PT422 unknown_verdict.
CREATE OR REPLACE FUNCTION punchcard.settle(
    p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_delays double precision[],
    p_outputs text[], p_errors text[], p_used bigint[] DEFAULT NULL, p_rescue boolean DEFAULT false,
    p_patience integer DEFAULT NULL)
    RETURNS TABLE (job_id uuid, status text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
    out_of_reach uuid[] := '{}';
BEGIN
    -- One that this edition does not know must not pass for a lost lease.
    IF NOT p_verdicts <@ ARRAY['complete', 'fail', 'reject', 'cancel', 'overdue', 'retry', 'snooze', 'crash', 'yield', 'return',
                               'wait']
        OR cardinality(p_verdicts) <> cardinality(p_job_ids) OR cardinality(p_lease_tokens) <> cardinality(p_job_ids)
    THEN
        RAISE EXCEPTION 'unknown_verdict' USING ERRCODE = 'PT422',
            DETAIL = 'Each job needs its lease token, and one of the verdicts that this function knows.';
    END IF;
    IF p_patience IS NOT NULL THEN
        out_of_reach := punchcard.lock_for_settling(p_job_ids, p_lease_tokens, p_verdicts, p_rescue, p_patience);
    END IF;
    RETURN QUERY
    WITH verdict AS MATERIALIZED (
        -- Rows are locked in the order of job ids, then accounts in theirs (nested loops keep it), so that two
        -- pollers do not deadlock.
        SELECT * FROM unnest(p_job_ids, p_lease_tokens, p_verdicts, p_delays, p_outputs, p_errors, p_used)
            AS v (job_id, lease_token, verdict, delay, output, error, used)
        WHERE v.job_id <> ALL (out_of_reach)
        ORDER BY v.job_id
    ), undecided AS MATERIALIZED (
        -- Whether these end the job is in its row, which is locked to look: a cancel may just be on its way.
        SELECT v.*, q.cancel_requested_at IS NOT NULL OR (v.verdict = 'crash' AND q.crashes + 1 >= q.max_crashes)
                    OR (v.verdict = 'retry' AND q.attempt >= q.max_attempts) AS ends
        FROM verdict v JOIN punchcard.queue q ON q.job_id = v.job_id
        WHERE v.verdict IN ('retry', 'snooze', 'yield', 'crash', 'return', 'wait') AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
        FOR NO KEY UPDATE OF q
    ), again AS (
        UPDATE punchcard.queue q
        SET attempt = CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt - 1 END,
            crashes = CASE v.verdict WHEN 'crash' THEN q.crashes + 1 ELSE q.crashes END,
            lease_expires_at = NULL,
            waiting_until = CASE v.verdict WHEN 'wait' THEN least(now() + make_interval(secs => v.delay), q.expires_at) END,
            run_at = CASE WHEN v.verdict IN ('return', 'wait') THEN q.run_at ELSE now() + make_interval(secs => v.delay) END,
            checkpoint = coalesce(v.output::json, q.checkpoint),
            error = coalesce(v.error::json, q.error),
            progress_percent = CASE v.verdict WHEN 'wait' THEN q.progress_percent END,
            progress_message = CASE v.verdict WHEN 'wait' THEN q.progress_message END,
            progress_at = CASE v.verdict WHEN 'wait' THEN q.progress_at END
        FROM undecided v
        WHERE q.job_id = v.job_id AND NOT v.ends
        RETURNING q.job_id, q.lease_token, v.verdict, q.run_started_at, v.error,
                  CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt + 1 END AS attempt
    ), ending AS MATERIALIZED (
        -- Apart, and not as a sub-select of what deletes: of an appended sub-select PostgreSQL checks a row that was touched
        -- meanwhile against the first row alone, and would drop its verdict (see the README beside this file).
        SELECT v.* FROM verdict v WHERE v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue')
        UNION ALL
        SELECT u.job_id, u.lease_token, u.verdict, u.delay, u.output, u.error, u.used FROM undecided u WHERE u.ends
    ), ended AS (
        DELETE FROM punchcard.queue q
        USING ending v
        WHERE q.job_id = v.job_id AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
          AND (v.verdict <> 'cancel' OR q.cancel_requested_at IS NOT NULL)
        RETURNING q.job_id, q.account_id, q.kind, q.share, q.price, q.bytes, q.attempt, q.lease_token, q.started_at, q.webhook,
                  -- Whoever it waits for is still at work, and can be told to stop.
                  v.verdict = 'wait' OR (v.verdict IN ('cancel', 'overdue') AND q.waiting_until IS NOT NULL) AS dropped,
                  CASE WHEN v.verdict = 'crash' AND q.cancel_requested_at IS NULL THEN q.crashes + 1 ELSE q.crashes END
                      AS crashes,
                  CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL AND v.verdict <> 'return'
                       THEN q.run_started_at END AS run_started_at,
                  CASE WHEN v.verdict = 'complete' THEN 'succeeded'
                       WHEN v.verdict IN ('fail', 'reject', 'overdue') OR q.cancel_requested_at IS NULL THEN 'failed'
                       ELSE 'canceled' END AS status,
                  CASE WHEN v.verdict = 'complete' OR (v.verdict = 'reject' AND q.on_input_error = 'capture')
                           -- Canceled while it ran or waited outside, or between two runs: what was done for
                           -- it is paid for.
                           OR (v.verdict NOT IN ('fail', 'reject', 'overdue')
                               AND q.cancel_requested_at IS NOT NULL AND q.on_cancel = 'capture'
                               AND ((v.verdict <> 'return'
                                     AND coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL)
                                    OR punchcard.has_run(q.job_id)))
                       THEN CASE WHEN q.metered THEN greatest(least(v.used, q.price), 0) ELSE q.price END
                       ELSE 0 END AS captured,
                  CASE v.verdict WHEN 'complete' THEN v.output::json END AS output,
                  CASE WHEN v.verdict <> 'complete' THEN coalesce(v.error::json, q.error) END AS error
    ), history AS (
        INSERT INTO punchcard.attempts (job_id, number, attempt, ended, started_at, ended_at, error)
        SELECT a.job_id, a.lease_token, a.attempt, a.verdict, a.run_started_at, clock_timestamp(), a.error::json
        FROM again a WHERE a.verdict NOT IN ('return', 'wait') AND a.lease_token <= 1000
    ), outcome AS (
        INSERT INTO punchcard.outcomes (job_id, account_id, status, captured, attempt, crashes, lease_token, started_at,
                                        run_started_at, finished_at, output, error)
        SELECT e.job_id, e.account_id, e.status, e.captured, e.attempt, e.crashes, e.lease_token, e.started_at,
               e.run_started_at, clock_timestamp(), e.output, e.error
        FROM ended e
    ), told AS (
        INSERT INTO punchcard.deliveries (id, account_id, job_id, event, url, next_at)
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, 'job.' || e.status, e.webhook ->> 'url', now()
        FROM ended e LEFT JOIN punchcard.webhooks w ON w.account_id = e.account_id
        WHERE CASE WHEN e.webhook IS NOT NULL THEN e.webhook -> 'events' ? ('job.' || e.status)
                   ELSE w.url IS NOT NULL AND w.disabled_at IS NULL AND 'job.' || e.status = ANY (w.events) END
        UNION ALL
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, 'cancel', k.cancel_url, now()
        FROM ended e JOIN punchcard.kinds k ON k.name = e.kind
        WHERE e.dropped AND k.cancel_url IS NOT NULL
        RETURNING job_id
    ), moved AS (
        -- The account moves once; its jobs go along, so that nothing is joined with itself.
        UPDATE punchcard.accounts a
        SET available = a.available + m.back, held = a.held - m.price,
            unfinished_jobs = a.unfinished_jobs - m.jobs, unfinished_bytes = a.unfinished_bytes - m.bytes
        FROM (SELECT e.account_id, e.share, sum(e.price)::bigint AS price, sum(e.price - e.captured)::bigint AS back,
                     count(*)::integer AS jobs, sum(e.bytes)::bigint AS bytes,
                     array_agg(e.job_id) AS job_ids, array_agg(e.price) AS prices, array_agg(e.captured) AS captured
              FROM ended e
              GROUP BY e.account_id, e.share ORDER BY e.account_id, e.share) m
        WHERE a.id = m.account_id AND a.share = m.share
        RETURNING a.id, a.share, a.available, a.held, m.job_ids, m.prices, m.captured
    ), entered AS (
        -- Each job still gets entries of its own, one for what is captured and one for what is released, with the balances
        -- after them.
        INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after, job_id)
        SELECT a.id, p.kind::punchcard.entry_kind, p.amount, a.share,
               a.available - coalesce(sum(p.amount) FILTER (WHERE p.kind = 'release') OVER later, 0),
               a.held + coalesce(sum(p.amount) OVER later, 0), e.job_id
        FROM moved a, unnest(a.job_ids, a.prices, a.captured) WITH ORDINALITY AS e (job_id, price, captured, n),
             LATERAL (VALUES (1, 'capture', e.captured), (2, 'release', e.price - e.captured)) AS p (part, kind, amount)
        WHERE p.amount > 0
        WINDOW later AS (PARTITION BY a.id, a.share ORDER BY e.n DESC, p.part DESC
                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ORDER BY a.id, a.share, e.n, p.part
    )
    SELECT e.job_id, e.status, EXISTS (SELECT FROM told) FROM ended e
    UNION ALL SELECT a.job_id, CASE a.verdict WHEN 'wait' THEN 'running' ELSE 'queued' END, false FROM again a
    UNION ALL SELECT o.job_id, NULL, false FROM unnest(out_of_reach) AS o (job_id);
END $$;
