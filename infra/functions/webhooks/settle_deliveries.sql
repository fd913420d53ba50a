-- Records what became of messages that were sent, of each attempt once. Verdicts: `delivered`; `retry` in
-- p_delays seconds; `put_back`, the same of one that was not sent; `give_up`; `gone` gives up, too, and
-- whatever else was to go there: its receiver wants no more. What was heard or given up goes from the outbox
-- to the deliveries. None is waited for: this may go out on the one connection by which a worker settles and
-- claims. Answers those that it recorded, or the same statement before it, whose answer was lost, and,
-- `out_of_reach`, those that somebody else holds; whoever is missing had been taken by another worker
-- meanwhile.
CREATE OR REPLACE FUNCTION punchcard.settle_deliveries(
    p_job_ids uuid[], p_ids uuid[], p_attempts smallint[], p_verdicts text[], p_delays double precision[],
    p_errors text[], p_urls text[])
    RETURNS TABLE (id uuid, out_of_reach boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH verdict AS MATERIALIZED (
        SELECT * FROM unnest(p_job_ids, p_ids, p_attempts, p_verdicts, p_delays, p_errors, p_urls)
            AS v (job_id, id, attempt, verdict, delay, error, url)
        ORDER BY v.id
    ), mine AS MATERIALIZED (
        SELECT v.* FROM verdict v JOIN punchcard.outbox b ON b.id = ANY (ARRAY[v.id])
        WHERE b.attempt = v.attempt AND b.settled < v.attempt
        FOR NO KEY UPDATE OF b SKIP LOCKED
    ), again AS (
        UPDATE punchcard.outbox b
        SET settled = v.attempt, next_at = now() + make_interval(secs => v.delay),
            put_back = b.put_back + (v.verdict = 'put_back')::integer,
            error = CASE v.verdict WHEN 'put_back' THEN b.error
                                   ELSE CASE WHEN NOT EXISTS (SELECT FROM punchcard.erasures x
                                                              WHERE x.account_id = b.account_id)
                                             THEN v.error END END
        FROM mine v
        WHERE b.id = ANY (ARRAY[v.id]) AND v.verdict IN ('retry', 'put_back')
        RETURNING b.id
    ), ended AS (
        DELETE FROM punchcard.outbox b USING mine v
        WHERE b.id = ANY (ARRAY[v.id]) AND v.verdict NOT IN ('retry', 'put_back')
        RETURNING b.*, v.verdict, v.error AS why, v.url AS sent_to
    ), others AS MATERIALIZED (
        -- Not what is on its way: it is answered. None is waited for: whoever has it, and hears the same,
        -- waits for none of ours either.
        SELECT o.id FROM ended e JOIN punchcard.outbox o ON o.job_id = ANY (ARRAY[e.job_id]) AND o.url = e.url
        WHERE e.verdict = 'gone' AND o.id <> ALL (p_ids) AND o.attempt = o.settled
        FOR NO KEY UPDATE OF o SKIP LOCKED
    ), dropped AS (
        DELETE FROM punchcard.outbox b WHERE b.id = ANY (ARRAY(SELECT o.id FROM others o))
        RETURNING b.*
    ), recorded AS (
        INSERT INTO punchcard.deliveries (id, account_id, job_id, created_at, delivered_at, event, attempt,
                                          put_back, gone, url, error)
        SELECT e.id, e.account_id, e.job_id, e.created_at, CASE e.verdict WHEN 'delivered' THEN now() END,
               e.event, e.attempt, e.put_back, e.verdict = 'gone',
               -- Of an account that is erased only that it was said.
               CASE WHEN x.account_id IS NULL THEN e.url END, CASE WHEN x.account_id IS NULL THEN e.why END
        FROM ended e LEFT JOIN punchcard.erasures x ON x.account_id = e.account_id
        UNION ALL
        SELECT d.id, d.account_id, d.job_id, d.created_at, NULL, d.event, d.attempt, d.put_back, false, d.url,
               'the receiver answered 410 (Gone)'
        FROM dropped d
    ), refuser AS MATERIALIZED (
        -- None is waited for: a webhook that somebody is just setting anew is theirs, and one that still
        -- wants no more says so again.
        SELECT w.account_id FROM punchcard.webhooks w
        JOIN (SELECT DISTINCT e.account_id, e.sent_to FROM ended e
              WHERE e.verdict = 'gone' AND e.url IS NULL) g
            ON w.account_id = g.account_id AND w.url = g.sent_to
        FOR NO KEY UPDATE OF w SKIP LOCKED
    ), disabled AS (
        UPDATE punchcard.webhooks w SET disabled_at = now() FROM refuser f WHERE w.account_id = f.account_id
    )
    SELECT a.id, false FROM again a
    UNION ALL
    SELECT e.id, false FROM ended e
    UNION ALL
    SELECT b.id, b.settled < v.attempt FROM verdict v JOIN punchcard.outbox b ON b.id = ANY (ARRAY[v.id])
    WHERE (b.attempt = v.attempt OR b.settled = v.attempt)
      AND NOT EXISTS (SELECT FROM again a WHERE a.id = b.id)
      AND NOT EXISTS (SELECT FROM ended e WHERE e.id = b.id)
    UNION ALL
    SELECT d.id, false FROM verdict v JOIN punchcard.deliveries d ON d.job_id = v.job_id AND d.id = v.id
    WHERE d.attempt = v.attempt;
END $$;
