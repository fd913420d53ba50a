-- Records what became of messages that were sent, of each attempt once. Verdicts: `delivered`; `retry` in
-- p_delays seconds; `put_back`, the same of one that was not sent; `give_up`; `gone` gives up, too, and
-- whatever else was to go there: its receiver wants no more. None is waited for: this may go out on the one
-- connection by which a worker settles and claims. Answers those that it recorded, or the same statement
-- before it, whose answer was lost, and, `out_of_reach`, those that somebody else holds; whoever is missing
-- had been taken by another worker meanwhile.
CREATE OR REPLACE FUNCTION punchcard.settle_deliveries(
    p_ids uuid[], p_attempts smallint[], p_verdicts text[], p_delays double precision[], p_errors text[],
    p_urls text[])
    RETURNS TABLE (id uuid, out_of_reach boolean)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
    WITH verdict AS MATERIALIZED (
        SELECT * FROM unnest(p_ids, p_attempts, p_verdicts, p_delays, p_errors, p_urls)
            AS v (id, attempt, verdict, delay, error, url)
        ORDER BY v.id
    ), mine AS MATERIALIZED (
        SELECT v.* FROM verdict v JOIN punchcard.deliveries d ON d.id = v.id
        WHERE d.attempt = v.attempt AND d.settled < v.attempt
        FOR NO KEY UPDATE OF d SKIP LOCKED
    ), recorded AS (
        UPDATE punchcard.deliveries d
        SET settled = v.attempt,
            next_at = CASE WHEN v.verdict IN ('retry', 'put_back')
                           THEN now() + make_interval(secs => v.delay) END,
            put_back = d.put_back + (v.verdict = 'put_back')::integer,
            delivered_at = CASE v.verdict WHEN 'delivered' THEN now() END,
            error = CASE v.verdict WHEN 'put_back' THEN d.error ELSE v.error END, gone = v.verdict = 'gone'
        FROM mine v
        WHERE d.id = v.id
        RETURNING d.id, d.account_id, d.job_id, d.url, v.verdict, v.url AS sent_to
    ), refuser AS MATERIALIZED (
        -- None is waited for: a webhook that somebody is just setting anew is theirs, and one that still
        -- wants no more says so again.
        SELECT w.account_id FROM punchcard.webhooks w
        JOIN (SELECT DISTINCT r.account_id, r.sent_to FROM recorded r
              WHERE r.verdict = 'gone' AND r.url IS NULL) g
            ON w.account_id = g.account_id AND w.url = g.sent_to
        FOR NO KEY UPDATE OF w SKIP LOCKED
    ), disabled AS (
        UPDATE punchcard.webhooks w SET disabled_at = now() FROM refuser f WHERE w.account_id = f.account_id
    ), dropped AS (
        -- None is waited for: whoever has it, and hears the same, waits for none of ours either.
        UPDATE punchcard.deliveries d
        SET next_at = NULL, settled = d.attempt, error = 'the receiver answered 410 (Gone)'
        WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM recorded r JOIN punchcard.deliveries o ON o.job_id = r.job_id AND o.url = r.url
            WHERE r.verdict = 'gone' AND o.next_at IS NOT NULL AND o.id <> ALL (p_ids)
            FOR NO KEY UPDATE OF o SKIP LOCKED))
    )
    SELECT r.id, false FROM recorded r
    UNION ALL
    SELECT d.id, d.settled < v.attempt FROM verdict v JOIN punchcard.deliveries d ON d.id = v.id
    WHERE (d.attempt = v.attempt OR d.settled = v.attempt)
      AND d.id <> ALL (ARRAY(SELECT r.id FROM recorded r))
$$;
