-- Settles runs in one statement: the job's status, its entry and the balance move together. Verdicts:
--   complete  succeeded, with its output             retry   queued again after p_delays seconds
--   fail      failed                                 snooze  the same, the attempt not counted
--   reject    failed, and its input is to blame      crash   the same, a crash counted; failed if that was
--                                                            the last
--   cancel    canceled, as was asked for             yield   queued again at once, the attempt not counted
--   overdue   failed: nobody called back in time     return  queued as it was: it never started
--   wait      running without a lease: somebody outside calls back within p_delays seconds
-- A job that is to be canceled is not queued again, but canceled, and one that has no attempt left fails.
-- What succeeds, or fails for good, does. p_outputs are also what a run that goes on later saved for it.
-- p_used are the credits that a metered job used; NULL: all. Each verdict needs its lease: same token, not
-- expired. p_rescue is for those that hold the row's lock: `rescue`, which takes back what has lapsed,
-- `cancel` and `call_back`. A job ends at once even while somebody else holds its account: what it moves is
-- deferred then (ADR 16), and entered by whoever holds the account next; by this call, if that is within a
-- moment. A job's own row that somebody holds is waited for for 200 ms; then all of it is refused (55P03) and
-- can be sent again with p_patience, a time in milliseconds: then what is still held after it is left out,
-- and answered with a NULL as its status. A batch that nobody is in the way of pays nothing for that (ADR
-- 15). Answers the jobs it settled, and whether somebody is to be told of it; whoever is missing had lost its
-- lease, and nothing of it was written. Raises PT422 unknown_verdict.
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
    settled uuid[];
    statuses text[];
    tellings boolean[];
    deferred boolean;
BEGIN
    -- One that this edition does not know must not pass for a lost lease.
    IF NOT p_verdicts <@ enum_range(NULL::punchcard.verdict)::text[]
        OR cardinality(p_verdicts) <> cardinality(p_job_ids)
        OR cardinality(p_lease_tokens) <> cardinality(p_job_ids)
    THEN
        RAISE EXCEPTION 'unknown_verdict' USING ERRCODE = 'PT422',
            DETAIL = 'Each job needs its lease token, and one of the verdicts that this function knows.';
    END IF;
    IF p_patience IS NOT NULL AND NOT p_rescue THEN
        out_of_reach := punchcard.lock_for_settling(p_job_ids, p_lease_tokens, p_patience);
    END IF;
    WITH verdict AS MATERIALIZED (
        -- Rows are locked in the order of job ids (nested loops keep it), so that two pollers do not
        -- deadlock.
        SELECT *
        FROM unnest(p_job_ids, p_lease_tokens, p_verdicts::punchcard.verdict[], p_delays, p_outputs, p_errors,
                    p_used)
            AS v (job_id, lease_token, verdict, delay, output, error, used)
        WHERE v.job_id <> ALL (out_of_reach)
        ORDER BY v.job_id
    ), undecided AS MATERIALIZED (
        -- Whether these end the job is in its row, which is locked to look: a cancel may just be on its way.
        SELECT v.*, q.cancel_requested_at IS NOT NULL OR (v.verdict = 'crash' AND q.crashes + 1 >= (
                        SELECT t.max_crashes FROM punchcard.kind_terms t WHERE t.id = q.terms_id))
                    OR (v.verdict = 'retry' AND q.attempt >= q.max_attempts) AS ends
        FROM verdict v JOIN punchcard.queue q ON q.job_id = ANY (ARRAY[v.job_id])
        WHERE v.verdict IN ('retry', 'snooze', 'yield', 'crash', 'return', 'wait')
          AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
        FOR NO KEY UPDATE OF q
    ), again AS (
        UPDATE punchcard.queue q
        SET attempt = CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt - 1 END,
            crashes = CASE v.verdict WHEN 'crash' THEN q.crashes + 1 ELSE q.crashes END,
            lease_expires_at = NULL,
            waiting_until = CASE v.verdict WHEN 'wait'
                                 THEN least(now() + make_interval(secs => v.delay), q.expires_at) END,
            run_at = CASE WHEN v.verdict IN ('return', 'wait') THEN q.run_at
                          ELSE now() + make_interval(secs => v.delay) END,
            -- What is handed back did not begin, and what was put off because what it relies on was away did
            -- nothing. As far as `attempts` tells of it.
            has_run = q.has_run OR (v.verdict NOT IN ('return', 'wait') AND q.lease_token <= 1000
                                    AND (v.verdict <> 'snooze' OR v.error IS NULL)),
            checkpoint = coalesce(v.output::json, q.checkpoint),
            error = coalesce(v.error::json, q.error),
            progress_percent = CASE v.verdict WHEN 'wait' THEN q.progress_percent END,
            progress_message = CASE v.verdict WHEN 'wait' THEN q.progress_message END,
            progress_at = CASE v.verdict WHEN 'wait' THEN q.progress_at END
        FROM undecided v
        WHERE q.job_id = ANY (ARRAY[v.job_id]) AND NOT v.ends
        RETURNING q.job_id, q.lease_token, v.verdict, q.run_started_at, v.error,
                  CASE WHEN v.verdict IN ('retry', 'wait') THEN q.attempt ELSE q.attempt + 1 END AS attempt
    ), ending AS MATERIALIZED (
        -- Apart, and not as a sub-select of what deletes: of an appended sub-select PostgreSQL checks a row
        -- that was touched meanwhile against the first row alone, and would drop its verdict (see
        -- infra/migrations/README.md).
        SELECT v.* FROM verdict v WHERE v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue')
        UNION ALL
        SELECT u.job_id, u.lease_token, u.verdict, u.delay, u.output, u.error, u.used
        FROM undecided u WHERE u.ends
    ), ended AS (
        DELETE FROM punchcard.queue q
        USING ending v
        WHERE q.job_id = ANY (ARRAY[v.job_id]) AND q.lease_token = v.lease_token
          AND (p_rescue OR q.lease_expires_at > clock_timestamp())
          AND (v.verdict <> 'cancel' OR q.cancel_requested_at IS NOT NULL)
        RETURNING q.job_id, q.account_id, q.kind, q.share, q.price, q.bytes, q.attempt, q.lease_token,
                  q.started_at, q.webhook,
                  -- Whoever it waits for is still at work, and can be told to stop.
                  v.verdict = 'wait' OR (v.verdict IN ('cancel', 'overdue') AND q.waiting_until IS NOT NULL)
                      AS dropped,
                  CASE WHEN v.verdict = 'crash' AND q.cancel_requested_at IS NULL THEN q.crashes + 1
                       ELSE q.crashes END AS crashes,
                  CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL
                            AND v.verdict <> 'return'
                       THEN q.run_started_at END AS run_started_at,
                  CASE WHEN v.verdict = 'complete' THEN 'succeeded'
                       WHEN v.verdict IN ('fail', 'reject', 'overdue') OR q.cancel_requested_at IS NULL
                       THEN 'failed'
                       ELSE 'canceled' END::punchcard.final_status AS status,
                  -- Becomes part of this statement: what it is given is looked up where it matters alone.
                  punchcard.captured(
                      v.verdict, q.price, v.used, p_to_cancel => q.cancel_requested_at IS NOT NULL,
                      p_under_way => coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL,
                      p_has_run => q.has_run,
                      p_metered => (SELECT t.metered FROM punchcard.kind_terms t WHERE t.id = q.terms_id),
                      p_on_cancel => (SELECT t.on_cancel FROM punchcard.kind_terms t WHERE t.id = q.terms_id),
                      p_on_input_error => (SELECT t.on_input_error FROM punchcard.kind_terms t
                                           WHERE t.id = q.terms_id)) AS captured,
                  CASE v.verdict WHEN 'complete' THEN v.output::json END AS output,
                  CASE WHEN v.verdict <> 'complete' THEN coalesce(v.error::json, q.error) END AS error
    ), history AS (
        INSERT INTO punchcard.attempts (job_id, number, attempt, ended, started_at, ended_at, error)
        SELECT a.job_id, a.lease_token, a.attempt, a.verdict::text::punchcard.run_end, a.run_started_at,
               clock_timestamp(), a.error::json
        FROM again a WHERE a.verdict NOT IN ('return', 'wait') AND a.lease_token <= 1000
    ), payer AS MATERIALIZED (
        -- Each account with its jobs, so that nothing is joined with itself; without its balances if somebody
        -- else holds it.
        SELECT m.account_id, m.share, m.price, m.back, m.bytes, m.jobs, a.available, a.held, a.entries
        FROM (SELECT e.account_id, e.share, sum(e.price)::bigint AS price,
                     sum(e.price - e.captured)::bigint AS back, sum(e.bytes)::bigint AS bytes,
                     array_agg(ROW(e.job_id, e.price, e.captured, e.bytes, e.lease_token, e.started_at,
                                   e.run_started_at, e.attempt, e.crashes, e.status, e.output,
                                   e.error)::punchcard.ended_job) AS jobs
              FROM ended e GROUP BY e.account_id, e.share) m
        LEFT JOIN LATERAL (
            SELECT a.available, a.held, a.entries FROM punchcard.accounts a
            WHERE a.id = m.account_id AND a.share = m.share
            FOR NO KEY UPDATE SKIP LOCKED) a ON true
    ), outcome AS (
        INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after,
                                        captured, status, attempt, crashes, lease_token, started_at,
                                        run_started_at, finished_at, output, error)
        SELECT j.job_id, p.account_id, p.share, p.entries + j.n,
               p.available + sum(j.price - j.captured) OVER so_far, p.held - sum(j.price) OVER so_far,
               j.captured, j.status, j.attempt, j.crashes, j.lease_token,
               nullif(j.started_at, j.run_started_at), j.run_started_at, clock_timestamp(), j.output, j.error
        FROM payer p, unnest(p.jobs) WITH ORDINALITY
            AS j (job_id, price, captured, bytes, lease_token, started_at, run_started_at, attempt, crashes,
                  status, output, error, n)
        WINDOW so_far AS (PARTITION BY p.account_id, p.share ORDER BY j.n)
    ), deferral AS (
        INSERT INTO punchcard.deferred_entries (job_id, account_id, share, price, captured, bytes)
        SELECT j.job_id, p.account_id, p.share, j.price, j.captured, j.bytes
        FROM payer p, unnest(p.jobs) j WHERE p.entries IS NULL
        RETURNING job_id
    ), moved AS (
        UPDATE punchcard.accounts a
        SET available = a.available + p.back, held = a.held - p.price,
            entries = a.entries + cardinality(p.jobs),
            unfinished_jobs = a.unfinished_jobs - cardinality(p.jobs),
            unfinished_bytes = a.unfinished_bytes - p.bytes
        FROM payer p
        WHERE p.entries IS NOT NULL AND a.id = p.account_id AND a.share = p.share
    ), told AS (
        INSERT INTO punchcard.outbox (id, account_id, job_id, event, url, next_at)
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, ('job.' || e.status::text)::punchcard.event,
               e.webhook ->> 'url', now()
        FROM ended e LEFT JOIN punchcard.webhooks w ON w.account_id = e.account_id
        WHERE CASE WHEN e.webhook IS NOT NULL THEN e.webhook -> 'events' ? ('job.' || e.status::text)
                   ELSE w.url IS NOT NULL
                        AND w.disabled_at IS NULL AND 'job.' || e.status::text = ANY (w.events) END
        UNION ALL
        SELECT punchcard.uuid_v7(), e.account_id, e.job_id, 'cancel'::punchcard.event, k.cancel_url, now()
        FROM ended e JOIN punchcard.kinds k ON k.name = e.kind
        WHERE e.dropped AND k.cancel_url IS NOT NULL
        RETURNING job_id
    )
    SELECT array_agg(r.job_id), array_agg(r.status), array_agg(r.told), EXISTS (SELECT FROM deferral)
    INTO settled, statuses, tellings, deferred
    FROM (
        SELECT e.job_id, e.status::text AS status, EXISTS (SELECT FROM told) AS told FROM ended e
        UNION ALL
        SELECT a.job_id, CASE a.verdict WHEN 'wait' THEN 'running' ELSE 'queued' END, false FROM again a
        UNION ALL
        SELECT o.job_id, NULL, false FROM unnest(out_of_reach) AS o (job_id)) r;
    IF deferred THEN
        PERFORM punchcard.enter_deferred(settled, 20);
    END IF;
    RETURN QUERY SELECT * FROM unnest(settled, statuses, tellings);
END $$;
