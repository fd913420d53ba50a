-- queued -> running for up to p_limit due jobs, by priority, then age, under a lease of at most p_lease
-- seconds; those in p_named, which the worker was woken for, before all others. Only kinds that the worker
-- serves: p_kinds, p_http, p_budget and p_woken are as in `served_kinds`. p_after_* say, for a kind and a
-- priority, the `run_at` (in microseconds since 1970) and id of the last job that this worker claimed of
-- these: the next claim starts there, and never walks again past the dead rows of its own earlier claims,
-- which no vacuum removes while a long transaction is open anywhere (ADR 0007). But for what is due since
-- less than five seconds: jobs are not committed in the order of their `run_at`. What a claim passes over for
-- its start, the next one without a start finds.
CREATE OR REPLACE FUNCTION punchcard.claim(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision,
    p_after_kinds text[] DEFAULT '{}', p_after_priorities smallint[] DEFAULT '{}',
    p_after_run_ats bigint[] DEFAULT '{}', p_after_ids uuid[] DEFAULT '{}',
    p_named uuid[] DEFAULT '{}', p_woken boolean DEFAULT false)
    RETURNS TABLE (
        job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint,
        input text, url text, secret_version integer, retired boolean, timeout_seconds integer,
        backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision,
        priority smallint, run_at_micros bigint, price bigint, metered boolean, backoff text,
        backoff_delays integer[], jitter double precision, retry text, cancel_url text,
        callback_seconds integer, checkpoint text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off
    -- Planned once: to plan over all months anew costs more than to claim one job.
    SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    due uuid[];
BEGIN
    due := punchcard.lock_due(p_limit, p_kinds, p_http, p_budget, p_after_kinds, p_after_priorities,
                              p_after_run_ats, p_after_ids, p_named, p_woken);
    IF due = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH clock AS MATERIALIZED (
        -- One time for both, so that the outcome of a job that ran once keeps one.
        SELECT clock_timestamp() AS at
    ), claimed AS (
        UPDATE punchcard.queue q
        SET attempt = q.attempt + 1, lease_token = q.lease_token + 1,
            lease_expires_at = least(clock_timestamp() + make_interval(secs => p_lease), q.expires_at),
            started_at = coalesce(q.started_at, (SELECT at FROM clock)),
            run_started_at = (SELECT at FROM clock)
        WHERE q.job_id = ANY (due)
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
