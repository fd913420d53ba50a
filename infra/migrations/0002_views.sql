-- What is read across tables; and the audit: what must never be. Each of its views answers no row when all is well
-- (invariants I0 to I6 in docs/ARCHITECTURE.md).

-- What an account has, over all its shares.
CREATE VIEW punchcard.balances WITH (security_invoker = on) AS
    SELECT id AS account_id, sum(available)::bigint AS available, sum(held)::bigint AS held
    FROM punchcard.accounts GROUP BY id;

-- The ledger with what each entry did to the two balances.
CREATE VIEW punchcard.entries WITH (security_invoker = on) AS
    SELECT l.*,
           CASE WHEN kind = 'hold' THEN -amount WHEN kind IN ('capture', 'expire') THEN 0 ELSE amount END
               AS available_delta,
           CASE WHEN kind = 'hold' THEN amount WHEN kind IN ('capture', 'release') THEN -amount ELSE 0 END
               AS held_delta
    FROM punchcard.ledger l;

-- Every job as it is now. Status words are the ADR's, and `canceled`.
CREATE VIEW punchcard.jobs_now WITH (security_invoker = on) AS
    SELECT j.id, j.account_id, j.kind,
           coalesce(o.status, CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued' ELSE 'running' END)
               AS status,
           j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input, o.output,
           coalesce(o.error, q.error) AS error,
           -- Of a row that was changed by hand: a time that the calendar has.
           least(greatest(coalesce(q.run_at, j.scheduled_at), timestamptz 'epoch'), timestamptz '9999-12-31') AS run_at,
           j.created_at,
           coalesce(o.started_at, q.started_at) AS started_at, o.finished_at, j.expires_at, j.batch_id,
           o.captured, coalesce(o.crashes, q.crashes) AS crashes, q.cancel_requested_at,
           q.progress_percent, q.progress_message, q.progress_at, j.retry_of, j.metadata, j.tags,
           q.waiting_until, j.webhook
    FROM punchcard.jobs j
    LEFT JOIN punchcard.queue q ON q.job_id = j.id
    LEFT JOIN punchcard.outcomes o ON o.job_id = j.id;

-- Every run of a job that has ended, and how.
CREATE VIEW punchcard.runs WITH (security_invoker = on) AS
    SELECT a.job_id, a.number, a.attempt, a.ended, a.started_at, a.ended_at, a.error FROM punchcard.attempts a
    UNION ALL
    SELECT o.job_id, o.lease_token, o.attempt, o.status, o.run_started_at, o.finished_at,
           CASE WHEN o.status = 'failed' THEN o.error END
    FROM punchcard.outcomes o WHERE o.run_started_at IS NOT NULL;

-- From whom row security hides rows that they must see: whoever asks, the owner, as whom the functions run, and the
-- functions' role. By the catalog alone: a look at rows that are hidden finds nothing wrong.
CREATE VIEW punchcard.hidden WITH (security_invoker = on) AS
    SELECT c.relname::text AS hidden_table, r.rolname::text AS hidden_from, r.oid = c.relowner AS is_owner
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_roles r ON r.oid = c.relowner OR r.rolname IN (current_user, 'punchcard_app')
    WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relrowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)
      AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
      AND (SELECT coalesce(bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true'
                                   AND (p.polcmd = '*' OR (p.polcmd = 'r' AND r.oid <> c.relowner))), false)
                  AND NOT coalesce(bool_or(NOT p.polpermissive), false)
           FROM pg_catalog.pg_policy p
           WHERE p.polrelid = c.oid
             AND EXISTS (SELECT FROM unnest(p.polroles) AS passes (role)
                         WHERE passes.role = 0 OR pg_has_role(r.oid, passes.role, 'USAGE'))) IS NOT TRUE;

CREATE VIEW punchcard.audit_i0 WITH (security_invoker = on) AS  -- whoever looks sees every row, and so do the functions
    SELECT NULL::uuid AS subject,
           'row security hides the rows of ' || count(*) || ' tables from ' || h.hidden_from
               || CASE WHEN bool_or(h.is_owner) THEN ', their owner: run `punchcard migrate` as this role'
                       ELSE ': ask as their owner' END AS finding
    FROM punchcard.hidden h WHERE h.is_owner OR h.hidden_from = current_user
    GROUP BY h.hidden_from;

CREATE VIEW punchcard.audit_i1 WITH (security_invoker = on) AS  -- unfinished <=> queued <=> open hold; none outlives its life
    SELECT j.id AS subject, 'job is in neither queue nor outcomes, or in both' AS finding
    FROM punchcard.jobs j
    LEFT JOIN punchcard.queue q ON q.job_id = j.id AND q.account_id = j.account_id
    LEFT JOIN punchcard.outcomes o ON o.job_id = j.id AND o.account_id = j.account_id
    WHERE (q.job_id IS NULL) = (o.job_id IS NULL)
    UNION ALL
    SELECT o.job_id, 'finished job with an open hold'
    FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.account_id = o.account_id AND j.id = o.job_id
    WHERE j.price > 0
      AND NOT EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = o.job_id AND l.kind IN ('capture', 'release'))
    UNION ALL
    SELECT coalesce(q.job_id, o.job_id), 'no such job was bought'
    FROM punchcard.queue q FULL JOIN punchcard.outcomes o ON o.job_id = q.job_id
    WHERE NOT EXISTS (SELECT FROM punchcard.jobs j
                      WHERE j.account_id = coalesce(q.account_id, o.account_id) AND j.id = coalesce(q.job_id, o.job_id))
    UNION ALL
    SELECT q.job_id, 'unfinished two ticks after it expired'
    FROM punchcard.queue q WHERE q.expires_at < now() - interval '2 minutes'
    UNION ALL
    SELECT q.job_id, 'waits two ticks after it was to be called back, or is leased meanwhile'
    FROM punchcard.queue q WHERE q.waiting_until < now() - interval '2 minutes' OR (q.waiting_until IS NOT NULL AND q.lease_expires_at IS NOT NULL);

CREATE VIEW punchcard.audit_i2 WITH (security_invoker = on) AS  -- balances are the sums of their entries, entry by entry
    SELECT a.id AS subject, 'balance is not the sum of its entries' AS finding
    FROM punchcard.accounts a
    LEFT JOIN (SELECT account_id, share, sum(available_delta) AS available, sum(held_delta) AS held
               FROM punchcard.entries GROUP BY account_id, share) e ON e.account_id = a.id AND e.share = a.share
    WHERE (a.available, a.held) IS DISTINCT FROM (coalesce(e.available, 0), coalesce(e.held, 0))
       OR a.available < 0 OR a.held < 0
    UNION ALL
    SELECT a.id, 'unfinished ' || a.unfinished_jobs || ' jobs, ' || a.unfinished_bytes || ' bytes, but queued '
                 || coalesce(q.jobs, 0) || ', ' || coalesce(q.bytes, 0)
    FROM punchcard.accounts a
    LEFT JOIN (SELECT account_id, share, count(*) AS jobs, sum(bytes) AS bytes FROM punchcard.queue
               GROUP BY account_id, share) q ON q.account_id = a.id AND q.share = a.share
    WHERE (a.unfinished_jobs, a.unfinished_bytes) IS DISTINCT FROM (coalesce(q.jobs, 0), coalesce(q.bytes, 0))
    UNION ALL
    SELECT r.account_id, 'entry ' || r.id || ' does not continue the balance'
    FROM (SELECT e.id, e.account_id, e.available_after, e.held_after,
                 sum(e.available_delta) OVER so_far AS available, sum(e.held_delta) OVER so_far AS held
          FROM punchcard.entries e
          WINDOW so_far AS (PARTITION BY e.account_id, e.share ORDER BY e.id)) r
    WHERE (r.available_after, r.held_after) IS DISTINCT FROM (r.available, r.held)
    UNION ALL
    SELECT e.account_id, 'entry ' || e.id || ' is of no account, or lacks its key'
    FROM punchcard.entries e
    WHERE (e.idempotency_key IS NOT NULL) <> (e.kind IN ('grant', 'adjust'))
       OR NOT EXISTS (SELECT FROM punchcard.accounts a WHERE a.id = e.account_id AND a.share = e.share)
    UNION ALL
    SELECT l.account_id, count(*) || ' movements have the key ' || l.idempotency_key
    FROM punchcard.ledger l WHERE l.idempotency_key IS NOT NULL
    GROUP BY l.account_id, l.idempotency_key HAVING count(*) > 1
    UNION ALL
    SELECT l.account_id, 'entry ' || l.id || ' expires credits, which nothing does'
    FROM punchcard.ledger l WHERE l.kind = 'expire';

-- Every priced job has exactly one hold, of its price; no entry names a job that is not its account's.
CREATE VIEW punchcard.audit_i3 WITH (security_invoker = on) AS
    SELECT j.id AS subject, 'job has ' || count(l.id) || ' holds' AS finding
    FROM punchcard.jobs j LEFT JOIN punchcard.ledger l ON l.job_id = j.id AND l.kind = 'hold'
    GROUP BY j.id, j.price
    HAVING count(l.id) <> CASE WHEN j.price > 0 THEN 1 ELSE 0 END OR coalesce(sum(l.amount), 0) <> j.price
    UNION ALL
    SELECT l.job_id, l.kind || ' without its job'
    FROM punchcard.ledger l LEFT JOIN punchcard.jobs j ON j.id = l.job_id AND j.account_id = l.account_id
    WHERE (l.job_id IS NOT NULL OR l.kind IN ('hold', 'capture', 'release')) AND j.id IS NULL
    UNION ALL
    SELECT l.job_id, l.kind || ' of ' || l.amount || ' names a job: it is charged by its hold alone'
    FROM punchcard.ledger l
    WHERE l.job_id IS NOT NULL AND (l.kind NOT IN ('hold', 'capture', 'release', 'adjust') OR l.amount < 0);

CREATE VIEW punchcard.audit_i4 WITH (security_invoker = on) AS  -- what became of the hold is what became of the job, as its terms say
    SELECT j.id AS subject, coalesce(o.status, 'unfinished') || ' but captured ' || coalesce(l.captured, 0)
                            || ' and released ' || coalesce(l.released, 0) AS finding
    FROM punchcard.jobs j
    LEFT JOIN punchcard.outcomes o ON o.job_id = j.id
    LEFT JOIN (SELECT job_id, sum(amount) FILTER (WHERE kind = 'capture') AS captured,
                      sum(amount) FILTER (WHERE kind = 'release') AS released
               FROM punchcard.ledger WHERE kind IN ('capture', 'release') GROUP BY job_id) l ON l.job_id = j.id
    -- As in `has_run`, or while it ran: then that run ended it.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.status = 'canceled' THEN o.run_started_at IS NOT NULL OR EXISTS (
            SELECT FROM punchcard.attempts a
            WHERE a.job_id = j.id AND (a.ended <> 'snooze' OR a.error IS NULL)) END
    ) r (has_run)
    WHERE (coalesce(l.captured, 0), coalesce(l.released, 0)) IS DISTINCT FROM
          (coalesce(o.captured, 0)::numeric, coalesce(j.price - o.captured, 0)::numeric)
       OR NOT CASE
           WHEN o.status IS NULL THEN true
           WHEN o.status = 'succeeded'
               THEN o.captured BETWEEN CASE WHEN j.metered THEN 0 ELSE j.price END AND j.price
           WHEN o.status = 'failed' AND j.on_input_error = 'capture' AND o.error ->> 'code' = 'invalid_input'
               THEN o.captured IN (0, j.price)
           WHEN o.status = 'canceled' AND j.on_cancel = 'capture' AND r.has_run THEN o.captured = j.price
           ELSE o.captured = 0 END
       OR (o.status = 'canceled' AND j.on_cancel = 'refuse' AND r.has_run)
    UNION ALL
    SELECT q.job_id, 'queued on other terms than it was bought on'
    FROM punchcard.queue q JOIN punchcard.jobs j ON j.account_id = q.account_id AND j.id = q.job_id
    WHERE (q.price, q.metered, q.on_cancel, q.on_input_error)
          IS DISTINCT FROM (j.price, j.metered, j.on_cancel, j.on_input_error)
    UNION ALL
    SELECT l.job_id, count(*) || ' entries of kind ' || l.kind
    FROM punchcard.ledger l WHERE l.job_id IS NOT NULL GROUP BY l.job_id, l.kind HAVING count(*) > 1;

CREATE VIEW punchcard.audit_i5 WITH (security_invoker = on) AS  -- what came in and was not used up is what is there
    SELECT coalesce(e.account_id, a.id) AS subject,
           'in ' || coalesce(e.total, 0) || ', there ' || coalesce(a.total, 0) AS finding
    FROM (SELECT account_id, sum(CASE kind WHEN 'capture' THEN -amount ELSE amount END) AS total
          FROM punchcard.ledger WHERE kind IN ('grant', 'adjust', 'capture') GROUP BY account_id) e
    FULL JOIN (SELECT id, sum(available + held) AS total FROM punchcard.accounts GROUP BY id) a
        ON a.id = e.account_id
    WHERE coalesce(e.total, 0) <> coalesce(a.total, 0);

CREATE VIEW punchcard.audit_i6 WITH (security_invoker = on) AS  -- who asked to be told of an end is, once, and of no other
    SELECT o.job_id AS subject, count(d.id) || ' messages of its end instead of one' AS finding
    FROM punchcard.jobs j
    JOIN punchcard.outcomes o ON o.job_id = j.id
    LEFT JOIN punchcard.deliveries d ON d.job_id = j.id AND d.event = 'job.' || o.status
    WHERE j.webhook -> 'events' ? ('job.' || o.status)
    GROUP BY o.job_id HAVING count(d.id) <> 1
    UNION ALL
    SELECT d.job_id, count(*) || ' messages say ' || d.event || ' of a job that is ' || coalesce(o.status, 'unfinished')
    FROM punchcard.deliveries d
    LEFT JOIN punchcard.jobs j ON j.account_id = d.account_id AND j.id = d.job_id
    LEFT JOIN punchcard.outcomes o ON o.job_id = d.job_id
    WHERE d.event IN ('job.succeeded', 'job.failed', 'job.canceled')
    GROUP BY d.job_id, d.event, o.status, j.id, j.webhook
    HAVING count(*) > 1 OR j.id IS NULL OR d.event IS DISTINCT FROM 'job.' || o.status
        OR NOT coalesce(j.webhook -> 'events' ? d.event, true);

CREATE VIEW punchcard.audit WITH (security_invoker = on) AS
    SELECT 'I0' AS invariant, * FROM punchcard.audit_i0
    UNION ALL SELECT 'I1', * FROM punchcard.audit_i1
    UNION ALL SELECT 'I2', * FROM punchcard.audit_i2
    UNION ALL SELECT 'I3', * FROM punchcard.audit_i3
    UNION ALL SELECT 'I4', * FROM punchcard.audit_i4
    UNION ALL SELECT 'I5', * FROM punchcard.audit_i5
    UNION ALL SELECT 'I6', * FROM punchcard.audit_i6;
