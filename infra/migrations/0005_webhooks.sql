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
    attempt       smallint NOT NULL DEFAULT 0,         -- how often it was taken to be sent; each time is recorded once
    settled       smallint NOT NULL DEFAULT 0,         -- the last attempt whose result is recorded
    put_back      smallint NOT NULL DEFAULT 0,         -- how often of these it was not sent, for no fault of its receiver's
    next_at       timestamptz,                         -- not before; while it is being sent, when that is given up; NULL: never again
    created_at    timestamptz NOT NULL DEFAULT now(),
    delivered_at  timestamptz,
    error         text,                                -- why the last attempt failed
    gone          boolean NOT NULL DEFAULT false       -- whoever is there answered 410 (Gone): they hear no more of this job
);
CREATE INDEX deliveries_due ON punchcard.deliveries (next_at) WHERE next_at IS NOT NULL;
-- Whose are due, account by account.
CREATE INDEX deliveries_waiting ON punchcard.deliveries (account_id, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_job ON punchcard.deliveries (job_id, id);
-- What was sent and not heard, for the operator.
CREATE INDEX deliveries_unheard ON punchcard.deliveries (id) WHERE delivered_at IS NULL AND error IS NOT NULL;

-- Takes up to p_limit messages to send, and keeps them for p_lease seconds: then another worker may. No account's are taken before
-- another's because they are more, or older: each that has any due gets an even share, and if p_spare one share is left over.
-- p_accounts, of which the caller has messages already or wants none, get up to p_rooms.
-- Answers where each message goes and by which versions of the account's secret it is signed, with the job as this statement sees
-- it: as what is said of it left it, or later. url is NULL if the webhook is gone meanwhile. Each row says, and one without a
-- message if none was taken, whether there may be `more`, and behind which account (`walked`) it was not looked for.
CREATE FUNCTION punchcard.claim_deliveries(
    p_limit integer, p_lease double precision, p_spare boolean DEFAULT false, p_accounts uuid[] DEFAULT '{}',
    p_rooms integer[] DEFAULT '{}', p_after uuid DEFAULT '00000000-0000-0000-0000-000000000000')
    RETURNS TABLE (id uuid, event text, url text, attempt smallint, put_back smallint, created_at timestamptz,
                   secret_version integer, old_secret_version integer, kind_secret_version integer, job punchcard.jobs_now,
                   more boolean, walked uuid)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
    WITH RECURSIVE look AS MATERIALIZED (
        -- As a rule no more are due than these, and they say whose.
        SELECT d.account_id, d.next_at FROM punchcard.deliveries d WHERE d.next_at <= now()
        ORDER BY d.next_at LIMIT greatest(4 * p_limit, 200)
    ), looked AS MATERIALIZED (
        SELECT count(*) AS messages, count(*) = greatest(4 * p_limit, 200) AS full FROM look
    ), barred AS MATERIALIZED (
        SELECT coalesce(array_agg(r.account_id), '{}') AS ids FROM unnest(p_accounts, p_rooms) AS r (account_id, room)
        WHERE r.room <= 0
    ), walk (account_id, due, n, found) AS (
        -- Else accounts are visited one after the other, each by one step in the index, whose first entry of an account says
        -- whether it has any due: however many one has, they cost one step.
        SELECT f.account_id, f.due, 1, f.due::integer
        FROM looked, barred, LATERAL (
            SELECT d.account_id, d.next_at <= now() AND d.account_id <> ALL (barred.ids) AS due FROM punchcard.deliveries d
            WHERE d.next_at IS NOT NULL AND d.account_id > p_after ORDER BY d.account_id, d.next_at LIMIT 1) f
        WHERE looked.full
        UNION ALL
        SELECT f.account_id, f.due, w.n + 1, w.found + f.due::integer
        FROM walk w, barred, LATERAL (
            SELECT d.account_id, d.next_at <= now() AND d.account_id <> ALL (barred.ids) AS due FROM punchcard.deliveries d
            WHERE d.next_at IS NOT NULL AND d.account_id > w.account_id ORDER BY d.account_id, d.next_at LIMIT 1) f
        WHERE w.n < 1000 AND w.found < p_limit
    ), lane AS MATERIALIZED (
        -- Who has none on its way goes first.
        SELECT l.account_id, coalesce(r.room, p_limit) AS room
        FROM (SELECT k.account_id, row_number() OVER (ORDER BY min(k.next_at)) AS place
              FROM look k, looked WHERE NOT looked.full GROUP BY k.account_id
              UNION ALL
              SELECT w.account_id, w.n FROM walk w WHERE w.due) l
        LEFT JOIN unnest(p_accounts, p_rooms) AS r (account_id, room) ON r.account_id = l.account_id
        WHERE coalesce(r.room, 1) > 0
        ORDER BY r.room IS NOT NULL, l.place
    ), share AS MATERIALIZED (
        SELECT ceil(p_limit::numeric / (count(*) + p_spare::integer))::integer AS most FROM lane HAVING count(*) > 0
    ), due AS MATERIALIZED (
        SELECT d.id FROM share, lane l, LATERAL (
            SELECT d.id FROM punchcard.deliveries d WHERE d.account_id = l.account_id AND d.next_at <= now()
            ORDER BY d.next_at LIMIT least(l.room, share.most) FOR NO KEY UPDATE SKIP LOCKED) d
        LIMIT p_limit
    ), taken AS (
        UPDATE punchcard.deliveries d
        SET attempt = d.attempt + 1, next_at = now() + make_interval(secs => p_lease)
        WHERE d.id = ANY (ARRAY(SELECT due.id FROM due))
        RETURNING d.*
    )
    SELECT m.*, looked.full OR looked.messages > (SELECT count(*) FROM taken),
           (SELECT w.account_id FROM walk w WHERE w.n = 1000 OR w.found = p_limit ORDER BY w.n DESC LIMIT 1)
    FROM looked LEFT JOIN (
        SELECT t.id, t.event,
               CASE WHEN t.url IS NULL THEN CASE WHEN w.disabled_at IS NULL THEN w.url END
                    WHEN NOT EXISTS (SELECT FROM punchcard.deliveries g WHERE g.job_id = t.job_id AND g.url = t.url AND g.gone)
                    THEN t.url END,
               t.attempt, t.put_back, t.created_at, coalesce(w.secret_version, 1),
               CASE WHEN w.rotated_at > now() - interval '1 day' THEN w.secret_version - 1 END, k.secret_version, n
        FROM taken t
        JOIN punchcard.jobs_now n ON n.account_id = t.account_id AND n.id = t.job_id
        JOIN punchcard.kinds k ON k.name = n.kind
        LEFT JOIN punchcard.webhooks w ON w.account_id = t.account_id) m ON true
$$;

-- Records what became of messages that were sent, of each attempt once. Verdicts: `delivered`; `retry` in p_delays seconds;
-- `put_back`, the same of one that was not sent; `give_up`; `gone` gives up, too, and whatever else was to go there: its receiver
-- wants no more.
-- None is waited for: this may go out on the one connection by which a worker settles and claims. Answers those that it recorded,
-- or the same statement before it, whose answer was lost, and, `out_of_reach`, those that somebody else holds; whoever is missing had
-- been taken by another worker meanwhile.
CREATE FUNCTION punchcard.settle_deliveries(
    p_ids uuid[], p_attempts smallint[], p_verdicts text[], p_delays double precision[], p_errors text[], p_urls text[])
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
            next_at = CASE WHEN v.verdict IN ('retry', 'put_back') THEN now() + make_interval(secs => v.delay) END,
            put_back = d.put_back + (v.verdict = 'put_back')::integer,
            delivered_at = CASE v.verdict WHEN 'delivered' THEN now() END,
            error = CASE v.verdict WHEN 'put_back' THEN d.error ELSE v.error END, gone = v.verdict = 'gone'
        FROM mine v
        WHERE d.id = v.id
        RETURNING d.id, d.account_id, d.job_id, d.url, v.verdict, v.url AS sent_to
    ), refuser AS MATERIALIZED (
        -- None is waited for: a webhook that somebody is just setting anew is theirs, and one that still wants no more says so
        -- again.
        SELECT w.account_id FROM punchcard.webhooks w
        JOIN (SELECT DISTINCT r.account_id, r.sent_to FROM recorded r WHERE r.verdict = 'gone' AND r.url IS NULL) g
            ON w.account_id = g.account_id AND w.url = g.sent_to
        FOR NO KEY UPDATE OF w SKIP LOCKED
    ), disabled AS (
        UPDATE punchcard.webhooks w SET disabled_at = now() FROM refuser f WHERE w.account_id = f.account_id
    ), dropped AS (
        -- None is waited for: whoever has it, and hears the same, waits for none of ours either.
        UPDATE punchcard.deliveries d SET next_at = NULL, settled = d.attempt, error = 'the receiver answered 410 (Gone)'
        WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM recorded r JOIN punchcard.deliveries o ON o.job_id = r.job_id AND o.url = r.url
            WHERE r.verdict = 'gone' AND o.next_at IS NOT NULL AND o.id <> ALL (p_ids)
            FOR NO KEY UPDATE OF o SKIP LOCKED))
    )
    SELECT r.id, false FROM recorded r
    UNION ALL
    SELECT d.id, d.settled < v.attempt FROM verdict v JOIN punchcard.deliveries d ON d.id = v.id
    WHERE (d.attempt = v.attempt OR d.settled = v.attempt) AND d.id <> ALL (ARRAY(SELECT r.id FROM recorded r))
$$;

-- Sets where an account is told of its jobs, or, with NULL, that it is not; a disabled webhook works again.
CREATE FUNCTION punchcard.set_webhook(p_account_id uuid, p_url text, p_events text[] DEFAULT NULL) RETURNS punchcard.webhooks
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO punchcard.webhooks (account_id, secret_version, rotated_at) VALUES (p_account_id, 2, now())
    ON CONFLICT (account_id) DO UPDATE SET secret_version = webhooks.secret_version + 1, rotated_at = now()
    RETURNING *
$$;

SELECT punchcard.revoke_defaults();
