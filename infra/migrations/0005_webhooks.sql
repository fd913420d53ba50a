-- Webhooks: who is told of what becomes of a job. `settle` and `claim` (0003_engine) write the outbox; workers send it.

-- Where an account is told of its jobs, but for those that name a webhook of their own. Its secret is derived (signing.rs) and
-- signs for both; the last one still does for a day after it was rotated.
CREATE TABLE punchcard.webhooks (
    account_id      uuid PRIMARY KEY,
    url             text CHECK (url ~ '^https?://' AND length(url) <= 2000),  -- NULL: none
    events          text[] NOT NULL DEFAULT '{job.succeeded,job.failed,job.canceled}'
                    CHECK (events <@ ARRAY['job.running', 'job.succeeded', 'job.failed', 'job.canceled']),
    secret_version  integer NOT NULL DEFAULT 1,
    rotated_at      timestamptz,
    disabled_at     timestamptz                        -- it answered 410 (Gone)
);

-- The outbox: what is to be said of a job, written by the statement that did it, and said until somebody has heard.
CREATE TABLE punchcard.deliveries (
    id            uuid PRIMARY KEY,                    -- the message's `webhook-id`, the same each time it is sent
    account_id    uuid NOT NULL,
    job_id        uuid NOT NULL,
    event         text NOT NULL,                       -- `cancel` is for the kind's cancel_url
    url           text,                                -- NULL: the account's, as it is when it is sent
    attempt       smallint NOT NULL DEFAULT 0,         -- how often it was sent; fences what is recorded of it
    next_at       timestamptz,                         -- not before; while it is being sent, when that is given up; NULL: never again
    created_at    timestamptz NOT NULL DEFAULT now(),
    delivered_at  timestamptz,
    error         text,                                -- why the last attempt failed
    gone          boolean NOT NULL DEFAULT false       -- whoever is there answered 410 (Gone): they hear no more of this job
);
CREATE INDEX deliveries_due ON punchcard.deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_job ON punchcard.deliveries (job_id);

-- Takes up to p_limit messages to send, and keeps them for p_lease seconds: then another worker may. Answers where each goes and
-- by which versions of the account's secret it is signed, with the job as this statement sees it: as what is said of it left it, or
-- later. url is NULL if the webhook is gone meanwhile.
CREATE FUNCTION punchcard.claim_deliveries(p_limit integer, p_lease double precision)
    RETURNS TABLE (id uuid, event text, url text, attempt smallint, created_at timestamptz, secret_version integer,
                   old_secret_version integer, kind_secret_version integer, job punchcard.jobs_now)
    LANGUAGE sql SECURITY DEFINER SET search_path = ''
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
    WITH due AS MATERIALIZED (
        SELECT d.id FROM punchcard.deliveries d WHERE d.next_at <= now()
        ORDER BY d.next_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE punchcard.deliveries d
        SET attempt = d.attempt + 1, next_at = now() + make_interval(secs => p_lease)
        WHERE d.id = ANY (ARRAY(SELECT due.id FROM due))
        RETURNING d.*
    )
    SELECT t.id, t.event,
           CASE WHEN t.url IS NULL THEN CASE WHEN w.disabled_at IS NULL THEN w.url END
                WHEN NOT EXISTS (SELECT FROM punchcard.deliveries g WHERE g.job_id = t.job_id AND g.url = t.url AND g.gone)
                THEN t.url END,
           t.attempt, t.created_at, coalesce(w.secret_version, 1),
           CASE WHEN w.rotated_at > now() - interval '1 day' THEN w.secret_version - 1 END, k.secret_version, n
    FROM taken t
    JOIN punchcard.jobs_now n ON n.account_id = t.account_id AND n.id = t.job_id
    JOIN punchcard.kinds k ON k.name = n.kind
    LEFT JOIN punchcard.webhooks w ON w.account_id = t.account_id
$$;

-- Records what became of messages that were sent, each fenced by its attempt. Verdicts: `delivered`; `retry` in p_delays seconds;
-- `give_up`; `gone` gives up, too, and whatever else was to go there: its receiver wants no more.
-- Answers those that it recorded; whoever is missing had been taken by another worker meanwhile.
CREATE FUNCTION punchcard.settle_deliveries(
    p_ids uuid[], p_attempts smallint[], p_verdicts text[], p_delays double precision[], p_errors text[], p_urls text[])
    RETURNS TABLE (id uuid)
    LANGUAGE sql SECURITY DEFINER SET search_path = ''
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
    WITH verdict AS MATERIALIZED (
        SELECT * FROM unnest(p_ids, p_attempts, p_verdicts, p_delays, p_errors, p_urls)
            AS v (id, attempt, verdict, delay, error, url)
        ORDER BY v.id
    ), recorded AS (
        UPDATE punchcard.deliveries d
        SET next_at = CASE v.verdict WHEN 'retry' THEN now() + make_interval(secs => v.delay) END,
            delivered_at = CASE v.verdict WHEN 'delivered' THEN now() END, error = v.error, gone = v.verdict = 'gone'
        FROM verdict v
        WHERE d.id = v.id AND d.attempt = v.attempt AND d.next_at IS NOT NULL
        RETURNING d.id, d.account_id, d.job_id, d.url, v.verdict, v.url AS sent_to
    ), disabled AS (
        -- Accounts in their order, so that no two deadlock.
        UPDATE punchcard.webhooks w SET disabled_at = now()
        FROM (SELECT DISTINCT r.account_id, r.sent_to FROM recorded r WHERE r.verdict = 'gone' AND r.url IS NULL
              ORDER BY r.account_id) g
        WHERE w.account_id = g.account_id AND w.url = g.sent_to
    ), dropped AS (
        -- None is waited for: whoever has it, and hears the same, waits for none of ours either.
        UPDATE punchcard.deliveries d SET next_at = NULL, error = 'the receiver answered 410 (Gone)'
        WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM recorded r JOIN punchcard.deliveries o ON o.job_id = r.job_id AND o.url = r.url
            WHERE r.verdict = 'gone' AND o.next_at IS NOT NULL AND o.id <> ALL (p_ids)
            FOR NO KEY UPDATE OF o SKIP LOCKED))
    )
    SELECT r.id FROM recorded r
$$;

-- Sets where an account is told of its jobs, or, with NULL, that it is not; a disabled webhook works again.
CREATE FUNCTION punchcard.set_webhook(p_account_id uuid, p_url text, p_events text[] DEFAULT NULL) RETURNS punchcard.webhooks
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    vetted jsonb;
    webhook punchcard.webhooks;
BEGIN
    IF p_url IS NOT NULL THEN
        vetted := punchcard.check_webhook(jsonb_build_object('url', p_url, 'events', to_jsonb(p_events)));
    END IF;
    INSERT INTO punchcard.webhooks (account_id, url, events)
    VALUES (p_account_id, p_url, coalesce(ARRAY(SELECT jsonb_array_elements_text(vetted -> 'events')), '{}'))
    ON CONFLICT (account_id) DO UPDATE SET url = excluded.url, events = excluded.events, disabled_at = NULL
    RETURNING * INTO webhook;
    RETURN webhook;
END $$;

-- Gives an account's webhooks a new secret. The last one signs, too, for a day.
CREATE FUNCTION punchcard.rotate_webhook_secret(p_account_id uuid) RETURNS punchcard.webhooks
    LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
    INSERT INTO punchcard.webhooks (account_id, secret_version, rotated_at) VALUES (p_account_id, 2, now())
    ON CONFLICT (account_id) DO UPDATE SET secret_version = webhooks.secret_version + 1, rotated_at = now()
    RETURNING *
$$;

SELECT punchcard.revoke_defaults();
