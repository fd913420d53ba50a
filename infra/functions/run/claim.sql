-- queued -> running for up to p_limit due jobs, by priority, then age, under a lease of at most p_lease
-- seconds; those in p_named, which the worker was woken for, before all others. Only kinds that the worker
-- serves: the Rust kinds in p_kinds and, if p_http, HTTP targets, whose time limit fits into the p_budget
-- seconds that it has left; if it was woken, p_woken, only those that SQS dispatches; and retired ones, to
-- fail them. p_after_* say, for a priority, the `run_at` (in microseconds since 1970) and id of the last job
-- that this worker claimed of it: the next claim starts there, and never walks again past the dead rows of
-- its own earlier claims, which no vacuum removes while a long transaction is open anywhere (ADR 0007). But
-- for what is due since less than five seconds: jobs are not committed in the order of their `run_at`. What a
-- claim passes over for its start, the next one without a start finds.
CREATE OR REPLACE FUNCTION punchcard.claim(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision,
    p_after_priorities smallint[] DEFAULT '{}', p_after_run_ats bigint[] DEFAULT '{}',
    p_after_ids uuid[] DEFAULT '{}', p_named uuid[] DEFAULT '{}', p_woken boolean DEFAULT false)
    RETURNS TABLE (
        job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint,
        input text, url text, secret_version integer, retired boolean, timeout_seconds integer,
        backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision,
        priority smallint, run_at_micros bigint, price bigint, metered boolean, backoff text,
        backoff_delays integer[], jitter double precision, retry text, cancel_url text,
        callback_seconds integer, checkpoint text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH served AS MATERIALIZED (
        SELECT array_agg(k.name) AS names FROM punchcard.kinds k
        WHERE (CASE WHEN k.url IS NULL THEN k.name = ANY (p_kinds) ELSE p_http END
               AND k.timeout_seconds <= p_budget AND NOT (p_woken AND k.dispatch = 'poll'))
           OR k.retired_at IS NOT NULL
    ), level AS MATERIALIZED (
        -- None if nothing is served: then no row is read to find that out.
        SELECT l.priority::smallint AS priority,
               CASE WHEN a.run_at IS NULL THEN '-infinity'  -- least() would ignore it
                    ELSE least(timestamptz 'epoch' + a.run_at * interval '1 microsecond',
                               now() - interval '5 seconds')
               END AS run_at,
               coalesce(a.id, '00000000-0000-0000-0000-000000000000') AS id
        FROM generate_series(10, -10, -1) AS l (priority)
        LEFT JOIN unnest(p_after_priorities, p_after_run_ats, p_after_ids) AS a (priority, run_at, id)
            ON a.priority = l.priority
        WHERE (SELECT names FROM served) IS NOT NULL
    ), due AS MATERIALIZED (
        SELECT d.job_id FROM (
            SELECT q.job_id FROM punchcard.queue q
            WHERE q.job_id = ANY (p_named) AND q.lease_expires_at IS NULL AND q.waiting_until IS NULL
              AND q.run_at <= now() AND q.expires_at > now()
              AND q.kind = ANY ((SELECT names FROM served)::text[])
            LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED) d
        UNION ALL
        -- One range of the index for each priority: delayed jobs lie behind `now()` in each, and are never
        -- read.
        SELECT d.job_id
        FROM level l, LATERAL (
            SELECT q.job_id FROM punchcard.queue q
            WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.priority = l.priority
              AND q.run_at <= now() AND (q.run_at, q.job_id) > (l.run_at, l.id)
              AND q.expires_at > now() AND q.kind = ANY ((SELECT names FROM served)::text[])
              AND q.job_id <> ALL (p_named)
            ORDER BY q.run_at, q.job_id
            LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED) d
        LIMIT p_limit
    ), clock AS MATERIALIZED (
        -- One time for both, so that the outcome of a job that ran once keeps one.
        SELECT clock_timestamp() AS at
    ), claimed AS (
        UPDATE punchcard.queue q
        SET attempt = q.attempt + 1, lease_token = q.lease_token + 1,
            lease_expires_at = least(clock_timestamp() + make_interval(secs => p_lease), q.expires_at),
            started_at = coalesce(q.started_at, (SELECT at FROM clock)),
            run_started_at = (SELECT at FROM clock)
        WHERE q.job_id = ANY (ARRAY(SELECT d.job_id FROM due d))
        RETURNING q.*
    ), told AS (
        INSERT INTO punchcard.outbox (id, account_id, job_id, event, url, next_at)
        SELECT punchcard.uuid_v7(), c.account_id, c.job_id, 'job.running'::punchcard.event,
               c.webhook ->> 'url', now()
        FROM claimed c LEFT JOIN punchcard.webhooks w ON w.account_id = c.account_id
        WHERE CASE WHEN c.webhook IS NOT NULL THEN c.webhook -> 'events' ? 'job.running'
                   ELSE w.url IS NOT NULL AND w.disabled_at IS NULL AND 'job.running' = ANY (w.events) END
        RETURNING job_id
    )
    SELECT c.job_id, c.lease_token, c.account_id, c.kind, c.attempt, c.max_attempts, j.input::text, k.url,
           k.secret_version, k.retired_at IS NOT NULL, k.timeout_seconds, k.backoff_seconds,
           k.backoff_max_seconds,
           extract(epoch FROM c.lease_expires_at - clock_timestamp())::double precision, c.priority,
           (extract(epoch FROM greatest(c.run_at, timestamptz 'epoch')) * 1000000)::bigint, c.price,
           CASE WHEN c.terms_id = k.terms_id THEN k.metered
                ELSE (SELECT t.metered FROM punchcard.kind_terms t WHERE t.id = c.terms_id) END,
           k.backoff, k.backoff_delays, k.jitter, j.retry::text, k.cancel_url, k.callback_seconds,
           c.checkpoint::text, EXISTS (SELECT FROM told)
    FROM claimed c
    JOIN punchcard.jobs j ON j.account_id = c.account_id AND j.id = c.job_id
    JOIN punchcard.kinds k ON k.name = c.kind;
END $$;
