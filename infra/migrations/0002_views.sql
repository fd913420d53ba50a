-- What is read across tables; and the audit: what must never be. Each of its views answers no row when all is
-- well (invariants I0 to I6 in docs/ARCHITECTURE.md).

-- The least of the ids that are above all that tell a time: from the year 2109 on.
CREATE FUNCTION punchcard.no_time() RETURNS uuid
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '04000000-0000-0000-0000-000000000000'::uuid
$$;

-- The tables of each that is kept by month, in their order: a month's, all before the first one's, the spare
-- one for what is bought behind the last, and the one of ids that tell no time (jobs of old systems).
CREATE VIEW punchcard.periods WITH (security_invoker = on) AS
    SELECT p.relname::text AS of_table, c.relname::text AS name, b.first_id,
           b.bounds LIKE '% TO (''' || punchcard.no_time() || ''')' AS is_spare
    FROM pg_catalog.pg_class p
    JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid,
         LATERAL (SELECT e.bounds, substring(e.bounds FROM E'FROM \\(''([^'']+)''\\)')::uuid AS first_id
                  FROM pg_get_expr(c.relpartbound, c.oid) AS e (bounds)) b
    WHERE p.relnamespace = 'punchcard'::regnamespace AND p.relkind = 'p'
    ORDER BY p.relname, b.first_id NULLS FIRST;

-- What an account has, over all its shares, with what waits to be entered.
CREATE VIEW punchcard.balances WITH (security_invoker = on) AS
    SELECT b.account_id, b.available + w.released AS available, b.held - w.price AS held
    FROM (SELECT a.id AS account_id, sum(a.available)::bigint AS available, sum(a.held)::bigint AS held
          FROM punchcard.accounts a GROUP BY a.id) b,
         LATERAL (SELECT coalesce(sum(d.price - d.captured), 0)::bigint AS released,
                         coalesce(sum(d.price), 0)::bigint AS price
                  FROM punchcard.deferred_entries d WHERE d.account_id = b.account_id AND d.entry IS NULL) w;

-- The jobs that are not archived: the entries of the others are in the archive, and perhaps still here.
CREATE VIEW punchcard.kept_jobs WITH (security_invoker = on) AS
    SELECT j.* FROM punchcard.jobs j WHERE j.id >= (SELECT r.archived_before FROM punchcard.retention r);

-- What came of the jobs that are not archived.
CREATE VIEW punchcard.kept_outcomes WITH (security_invoker = on) AS
    SELECT o.* FROM punchcard.outcomes o
    WHERE o.job_id >= (SELECT r.archived_before FROM punchcard.retention r);

-- The archive, entry by entry: holds, and ends with what was captured.
CREATE VIEW punchcard.archived_entries WITH (security_invoker = on) AS
    SELECT e.account_id, e.share, e.entry, e.job_id, e.price, e.captured, e.available_after, e.held_after,
           e.at
    FROM punchcard.archive a,
         unnest(a.accounts, a.shares, a.entries, a.job_ids, a.prices, a.captured, a.available_after,
                a.held_after, a.at)
             AS e (account_id, share, entry, job_id, price, captured, available_after, held_after, at)
    WHERE a.end_id <= (SELECT r.archived_before FROM punchcard.retention r);

-- What waits to be entered, with the number and the balances that it would get now.
CREATE VIEW punchcard.waiting_entries WITH (security_invoker = on) AS
    SELECT d.account_id, d.share, d.job_id, a.entries + row_number() OVER so_far AS entry,
           (a.available + sum(d.price - d.captured) OVER so_far)::bigint AS available_after,
           (a.held - sum(d.price) OVER so_far)::bigint AS held_after
    FROM punchcard.deferred_entries d JOIN punchcard.accounts a ON a.id = d.account_id AND a.share = d.share
    WHERE d.entry IS NULL
    WINDOW so_far AS (PARTITION BY d.account_id, d.share ORDER BY d.job_id);

-- The end of each hold, with its number and the balances after it.
CREATE VIEW punchcard.ends WITH (security_invoker = on) AS
    SELECT o.job_id, o.account_id, o.share, j.price, o.captured, o.finished_at, w.job_id IS NOT NULL AS waits,
           coalesce(o.entry, d.entry, w.entry) AS entry,
           coalesce(o.available_after, d.available_after, w.available_after) AS available_after,
           coalesce(o.held_after, d.held_after, w.held_after) AS held_after
    FROM punchcard.kept_outcomes o
    JOIN punchcard.kept_jobs j ON j.account_id = o.account_id AND j.id = o.job_id
    LEFT JOIN punchcard.deferred_entries d ON d.job_id = o.job_id AND o.entry IS NULL
    LEFT JOIN punchcard.waiting_entries w
        ON w.account_id = o.account_id AND w.job_id = o.job_id AND o.entry IS NULL AND d.entry IS NULL
    UNION ALL
    SELECT a.job_id, a.account_id, a.share, a.price, a.captured, a.at, false, a.entry, a.available_after,
           a.held_after
    FROM punchcard.archived_entries a WHERE a.captured IS NOT NULL;

-- Every movement of credits. `id` is its number: of an account (of one that is spread: of a share) they count
-- 1, 2, 3, … without a gap, with those of jobs that were free, which move nothing and are not shown. A
-- capture and a release of one end share it. What is carried has the number of its last entry.
CREATE VIEW punchcard.ledger WITH (security_invoker = on) AS
    SELECT m.account_id, m.entry AS id, m.kind, m.amount, m.share, m.available_after, m.held_after, m.job_id,
           m.idempotency_key, m.reason, m.created_at
    FROM punchcard.movements m
    UNION ALL
    SELECT j.account_id, j.entry, 'hold', j.price, j.share, j.available_after, j.held_after, j.id, NULL, NULL,
           j.created_at
    FROM punchcard.kept_jobs j WHERE j.price > 0
    UNION ALL
    SELECT a.account_id, a.entry, 'hold', a.price, a.share, a.available_after, a.held_after, a.job_id, NULL,
           NULL, a.at
    FROM punchcard.archived_entries a WHERE a.price > 0 AND a.captured IS NULL
    UNION ALL
    SELECT e.account_id, e.entry, 'capture', e.captured, e.share, e.available_after - (e.price - e.captured),
           e.held_after + (e.price - e.captured), e.job_id, NULL, NULL, e.finished_at
    FROM punchcard.ends e WHERE e.captured > 0
    UNION ALL
    SELECT e.account_id, e.entry, 'release', e.price - e.captured, e.share, e.available_after, e.held_after,
           e.job_id, NULL, NULL, e.finished_at
    FROM punchcard.ends e WHERE e.price > e.captured
    UNION ALL
    SELECT c.account_id, upper(c.numbers) - 1, 'carried', c.available, c.share, c.available, c.held, NULL,
           NULL, c.entries || ' entries, SHA-256 ' || c.sha256, c.until
    FROM punchcard.carried c;

-- The ledger with what each entry did to the two balances.
CREATE VIEW punchcard.entries WITH (security_invoker = on) AS
    SELECT l.*,
           CASE WHEN kind = 'hold' THEN -amount WHEN kind IN ('capture', 'expire') THEN 0 ELSE amount END
               AS available_delta,
           CASE WHEN kind = 'hold' THEN amount WHEN kind IN ('capture', 'release') THEN -amount
                WHEN kind = 'carried' THEN held_after ELSE 0 END
               AS held_delta
    FROM punchcard.ledger l;

-- Every job of a span of ids as it is now: both tables that are kept by month are read where the span is. Its
-- text is parsed once, here, and takes the place of each call. Status words are the ADR's, and `canceled`.
CREATE FUNCTION punchcard.jobs_between(p_first uuid, p_last uuid)
    RETURNS TABLE (
        id uuid, account_id uuid, kind text, status text, price bigint, priority smallint, attempt smallint,
        max_attempts smallint, input json, output json, error json, run_at timestamptz,
        created_at timestamptz, started_at timestamptz, finished_at timestamptz, expires_at timestamptz,
        batch_id uuid, captured bigint, crashes smallint, cancel_requested_at timestamptz,
        progress_percent smallint, progress_message text, progress_at timestamptz, retry_of uuid,
        metadata jsonb, tags text[], waiting_until timestamptz, webhook jsonb)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT j.id, j.account_id, j.kind,
               coalesce(o.status::text,
                        CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued'
                             ELSE 'running' END) AS status,
               j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input,
               o.output, coalesce(o.error, q.error) AS error,
               -- Of a row that was changed by hand: a time that the calendar has.
               least(greatest(coalesce(q.run_at, j.scheduled_at, j.created_at), timestamptz 'epoch'),
                     timestamptz '9999-12-31') AS run_at,
               j.created_at, coalesce(o.started_at, o.run_started_at, q.started_at) AS started_at,
               o.finished_at, j.expires_at, j.batch_id, o.captured,
               coalesce(o.crashes, q.crashes) AS crashes, q.cancel_requested_at, q.progress_percent,
               q.progress_message, q.progress_at, j.retry_of, j.metadata, j.tags, q.waiting_until, j.webhook
        FROM punchcard.jobs j
        LEFT JOIN punchcard.queue q ON q.job_id = j.id
        LEFT JOIN punchcard.outcomes o ON o.job_id = j.id AND o.job_id BETWEEN p_first AND p_last
        WHERE j.id BETWEEN p_first AND p_last;
    END;

-- Every job as it is now.
CREATE VIEW punchcard.jobs_now WITH (security_invoker = on) AS
    SELECT j.* FROM punchcard.jobs_between('00000000-0000-0000-0000-000000000000',
                                           'ffffffff-ffff-ffff-ffff-ffffffffffff') j;

-- Jobs that failed or were canceled, each kind of end by an index of its own (`find_unsuccessful_jobs`).
CREATE VIEW punchcard.unsuccessful_jobs WITH (security_invoker = on) AS
    SELECT o.account_id, o.job_id, 'failed' AS status FROM punchcard.outcomes o WHERE o.status = 'failed'
    UNION ALL
    SELECT o.account_id, o.job_id, 'canceled' FROM punchcard.outcomes o WHERE o.status = 'canceled';

-- Every run of a job that has ended, and how.
CREATE VIEW punchcard.runs WITH (security_invoker = on) AS
    SELECT a.job_id, a.number, a.attempt, a.ended::text AS ended, a.started_at, a.ended_at, a.error
    FROM punchcard.attempts a
    UNION ALL
    SELECT o.job_id, o.lease_token, o.attempt, o.status::text, o.run_started_at, o.finished_at,
           CASE WHEN o.status = 'failed' THEN o.error END
    FROM punchcard.outcomes o WHERE o.run_started_at IS NOT NULL;

-- What is or was said of jobs. `next_at`: when it is said next; NULL: it was heard, or is given up.
CREATE VIEW punchcard.messages WITH (security_invoker = on) AS
    SELECT b.id, b.account_id, b.job_id, b.event, b.url, b.attempt, b.put_back, b.next_at, b.created_at,
           NULL::timestamptz AS delivered_at, b.error
    FROM punchcard.outbox b
    UNION ALL
    SELECT d.id, d.account_id, d.job_id, d.event, d.url, d.attempt, d.put_back, NULL, d.created_at,
           d.delivered_at, d.error
    FROM punchcard.deliveries d;

-- From whom row security hides rows that they must see: whoever asks, the owner, as whom the functions run,
-- and the functions' role. By the catalog alone: a look at rows that are hidden finds nothing wrong.
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

-- Whoever looks sees every row, and so do the functions.
CREATE VIEW punchcard.audit_i0 WITH (security_invoker = on) AS
    SELECT NULL::uuid AS subject,
           'row security hides the rows of ' || count(*) || ' tables from ' || h.hidden_from
               || CASE WHEN bool_or(h.is_owner) THEN ', their owner: run `punchcard migrate` as this role'
                       ELSE ': ask as their owner' END AS finding
    FROM punchcard.hidden h WHERE h.is_owner OR h.hidden_from = current_user
    GROUP BY h.hidden_from;

-- Unfinished <=> queued <=> open hold; none outlives its life.
CREATE VIEW punchcard.audit_i1 WITH (security_invoker = on) AS
    SELECT j.id AS subject, 'job is in neither queue nor outcomes, or in both' AS finding
    FROM punchcard.kept_jobs j
    LEFT JOIN punchcard.queue q ON q.job_id = j.id AND q.account_id = j.account_id
    LEFT JOIN punchcard.kept_outcomes o ON o.job_id = j.id AND o.account_id = j.account_id
    WHERE (q.job_id IS NULL) = (o.job_id IS NULL)
    UNION ALL
    SELECT coalesce(o.job_id, d.job_id),
           'what it moved is entered ' || CASE WHEN o.entry IS NULL THEN 'nowhere' ELSE 'twice' END
    FROM (SELECT o.job_id, o.entry, o.account_id, o.share, o.captured FROM punchcard.kept_outcomes o) o
    FULL JOIN punchcard.deferred_entries d
        ON d.job_id = o.job_id AND (d.account_id, d.share, d.captured) = (o.account_id, o.share, o.captured)
    WHERE (o.entry IS NULL) = (d.job_id IS NULL) OR o.job_id IS NULL
    UNION ALL
    SELECT coalesce(q.job_id, o.job_id), 'no such job was bought'
    FROM punchcard.queue q FULL JOIN punchcard.kept_outcomes o ON o.job_id = q.job_id
    WHERE NOT EXISTS (SELECT FROM punchcard.kept_jobs j
                      WHERE j.account_id = coalesce(q.account_id, o.account_id)
                        AND j.id = coalesce(q.job_id, o.job_id))
    UNION ALL
    SELECT q.job_id, 'unfinished two ticks after it expired'
    FROM punchcard.queue q WHERE q.expires_at < now() - interval '2 minutes'
    UNION ALL
    SELECT q.job_id, 'waits two ticks after it was to be called back, or is leased meanwhile'
    FROM punchcard.queue q
    WHERE q.waiting_until < now() - interval '2 minutes'
      OR (q.waiting_until IS NOT NULL AND q.lease_expires_at IS NOT NULL);

-- What each numbered row did to its account's share: a movement, a hold, or the end of one.
CREATE VIEW punchcard.numbered WITH (security_invoker = on) AS
    SELECT m.account_id, m.share, m.entry, m.amount AS available_delta, 0::bigint AS held_delta,
           m.available_after, m.held_after
    FROM punchcard.movements m
    UNION ALL
    SELECT j.account_id, j.share, j.entry, -j.price, j.price, j.available_after, j.held_after
    FROM punchcard.kept_jobs j
    UNION ALL
    SELECT o.account_id, o.share, coalesce(o.entry, d.entry), j.price - o.captured, -j.price,
           coalesce(o.available_after, d.available_after), coalesce(o.held_after, d.held_after)
    FROM punchcard.kept_outcomes o
    JOIN punchcard.kept_jobs j ON j.account_id = o.account_id AND j.id = o.job_id
    LEFT JOIN punchcard.deferred_entries d ON d.job_id = o.job_id AND o.entry IS NULL
    WHERE o.entry IS NOT NULL OR d.entry IS NOT NULL
    UNION ALL
    SELECT a.account_id, a.share, a.entry, a.price - coalesce(a.captured, 2 * a.price),
           CASE WHEN a.captured IS NULL THEN a.price ELSE -a.price END, a.available_after, a.held_after
    FROM punchcard.archived_entries a;

-- Balances are the sums of their entries, entry by entry, and no entry is missing: they count 1, 2, 3, … in
-- each share. What is carried is a gap: as many are missing there, and the balance goes on behind it.
CREATE VIEW punchcard.audit_i2 WITH (security_invoker = on) AS
    SELECT a.id AS subject, 'balance is not the sum of its ' || a.entries || ' entries' AS finding
    FROM punchcard.accounts a
    LEFT JOIN (SELECT n.account_id, n.share, count(*) AS entries, sum(n.available_delta) AS available,
                      sum(n.held_delta) AS held
               FROM punchcard.numbered n GROUP BY n.account_id, n.share) e
        ON e.account_id = a.id AND e.share = a.share
    LEFT JOIN punchcard.carried c ON c.account_id = a.id AND c.share = a.share
    WHERE (a.available, a.held, a.entries)
          IS DISTINCT FROM (coalesce(e.available, 0) + coalesce(c.available, 0),
                            coalesce(e.held, 0) + coalesce(c.held, 0),
                            coalesce(e.entries, 0) + coalesce(c.entries, 0))
       OR a.available < 0 OR a.held < 0
       OR c.entries <> (SELECT sum(upper(r) - lower(r)) FROM unnest(c.numbers) AS r)
    UNION ALL
    SELECT a.id, 'unfinished ' || a.unfinished_jobs || ' jobs, ' || a.unfinished_bytes
                 || ' bytes, but queued ' || coalesce(q.jobs, 0) || ', ' || coalesce(q.bytes, 0)
    FROM punchcard.accounts a
    LEFT JOIN (SELECT u.account_id, u.share, count(*) AS jobs, sum(u.bytes) AS bytes
               FROM (SELECT q.account_id, q.share, q.bytes FROM punchcard.queue q
                     UNION ALL
                     SELECT d.account_id, d.share, d.bytes FROM punchcard.deferred_entries d
                     WHERE d.entry IS NULL) u
               GROUP BY u.account_id, u.share) q ON q.account_id = a.id AND q.share = a.share
    WHERE (a.unfinished_jobs, a.unfinished_bytes) IS DISTINCT FROM (coalesce(q.jobs, 0), coalesce(q.bytes, 0))
    UNION ALL
    SELECT r.account_id,
           'entry ' || r.entry || ' of share ' || r.share || ' is number ' || r.n
               || ', or does not continue the balance'
    FROM (SELECT n.*, row_number() OVER so_far AS n, sum(n.available_delta) OVER so_far AS available,
                 sum(n.held_delta) OVER so_far AS held
          FROM punchcard.numbered n
          WHERE NOT EXISTS (SELECT FROM punchcard.carried c
                            WHERE c.account_id = n.account_id AND c.share = n.share)
          WINDOW so_far AS (PARTITION BY n.account_id, n.share ORDER BY n.entry
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) r
    WHERE (r.entry, r.available_after, r.held_after) IS DISTINCT FROM (r.n, r.available, r.held)
    UNION ALL
    SELECT r.account_id,
           'entry ' || r.entry || ' of share ' || r.share || ' is number ' || r.n
               || ', or does not continue the balance'
    FROM (SELECT s.*, sum(s.entries) OVER so_far AS n,
                 CASE WHEN s.gaps = 0 THEN 0
                      ELSE first_value(s.available_after - s.available_delta) OVER since_gap END
                     + sum(s.available_delta) OVER since_gap AS available,
                 CASE WHEN s.gaps = 0 THEN 0
                      ELSE first_value(s.held_after - s.held_delta) OVER since_gap END
                     + sum(s.held_delta) OVER since_gap AS held
          FROM (SELECT i.*, coalesce(sum(i.is_gap) OVER (
                           PARTITION BY i.account_id, i.share ORDER BY i.entry
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS gaps
                FROM (SELECT n.*, 1 AS entries, 0 AS is_gap
                      FROM punchcard.numbered n
                      WHERE EXISTS (SELECT FROM punchcard.carried c
                                    WHERE c.account_id = n.account_id AND c.share = n.share)
                      UNION ALL
                      SELECT c.account_id, c.share, upper(r) - 1, 0, 0, 0, 0, upper(r) - lower(r), 1
                      FROM punchcard.carried c, unnest(c.numbers) AS r) i) s
          WINDOW so_far AS (PARTITION BY s.account_id, s.share ORDER BY s.entry
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
                 since_gap AS (PARTITION BY s.account_id, s.share, s.gaps ORDER BY s.entry
                               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) r
    WHERE r.is_gap = 0
      AND (r.entry, r.available_after, r.held_after) IS DISTINCT FROM (r.n, r.available, r.held)
    UNION ALL
    SELECT n.account_id, 'entry ' || n.entry || ' is of no account'
    FROM (SELECT m.account_id, m.share, m.entry FROM punchcard.movements m
          UNION ALL SELECT j.account_id, j.share, j.entry FROM punchcard.kept_jobs j
          UNION ALL SELECT o.account_id, o.share, o.entry FROM punchcard.kept_outcomes o
          UNION ALL SELECT a.account_id, a.share, a.entry FROM punchcard.archived_entries a
          UNION ALL SELECT c.account_id, c.share, upper(c.numbers) - 1 FROM punchcard.carried c) n
    WHERE NOT EXISTS (SELECT FROM punchcard.accounts a WHERE a.id = n.account_id AND a.share = n.share)
    UNION ALL
    SELECT m.account_id, 'entry ' || m.entry || ' lacks its key, or is of a kind that is no movement'
    FROM punchcard.movements m
    WHERE (m.idempotency_key IS NOT NULL) <> (m.kind IN ('grant', 'adjust'))
      OR m.kind NOT IN ('grant', 'adjust', 'shift')
    UNION ALL
    SELECT m.account_id, count(*) || ' movements have the key ' || m.idempotency_key
    FROM punchcard.movements m WHERE m.idempotency_key IS NOT NULL
    GROUP BY m.account_id, m.idempotency_key HAVING count(*) > 1;

-- A job is charged by its hold alone, which is its row: no movement names a job but one that gives back for
-- it, once, to the account that bought it.
CREATE VIEW punchcard.audit_i3 WITH (security_invoker = on) AS
    SELECT m.job_id AS subject,
           m.kind || ' of ' || m.amount || ' names a job: it is charged by its hold alone' AS finding
    FROM punchcard.movements m WHERE m.job_id IS NOT NULL AND (m.kind <> 'adjust' OR m.amount < 0)
    UNION ALL
    SELECT l.job_id, l.kind || ' without its job'
    FROM (SELECT m.account_id, m.job_id, m.kind FROM punchcard.movements m
          WHERE m.job_id >= (SELECT r.carrying_before FROM punchcard.retention r)
            AND NOT EXISTS (SELECT FROM punchcard.jobs j
                            WHERE j.account_id = m.account_id AND j.id = m.job_id)
          EXCEPT
          SELECT a.account_id, a.job_id, 'adjust' FROM punchcard.archived_entries a
          WHERE a.captured IS NULL) l
    UNION ALL
    SELECT m.job_id, count(*) || ' entries give back for it'
    FROM punchcard.movements m WHERE m.job_id IS NOT NULL GROUP BY m.job_id HAVING count(*) > 1
    UNION ALL
    SELECT j.id, 'held ' || j.price || ' on terms that are not there, or of another kind'
    FROM punchcard.kept_jobs j LEFT JOIN punchcard.kind_terms t ON t.id = j.terms_id AND t.kind = j.kind
    WHERE t.id IS NULL AND j.price > 0 OR j.price < 0;

-- What became of the hold is what became of the job, as its terms say.
CREATE VIEW punchcard.audit_i4 WITH (security_invoker = on) AS
    SELECT j.id AS subject,
           o.status::text || ' but captured ' || o.captured || ' and released ' || j.price - o.captured
               AS finding
    FROM punchcard.kept_jobs j
    JOIN punchcard.kept_outcomes o ON o.job_id = j.id AND o.account_id = j.account_id
    LEFT JOIN punchcard.kind_terms t ON t.id = j.terms_id
    -- As `has_run` in the queue, or while it ran: then that run ended it.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.status = 'canceled' THEN o.run_started_at IS NOT NULL OR EXISTS (
            SELECT FROM punchcard.attempts a
            WHERE a.job_id = j.id AND (a.ended <> 'snooze' OR a.error IS NULL)) END
    ) r (has_run)
    WHERE NOT CASE
           WHEN o.status = 'succeeded'
               THEN o.captured BETWEEN CASE WHEN t.metered THEN 0 ELSE j.price END AND j.price
           WHEN o.status = 'failed' AND t.on_input_error = 'capture' AND o.error ->> 'code' = 'invalid_input'
               THEN o.captured IN (0, j.price)
           WHEN o.status = 'canceled' AND t.on_cancel = 'capture' AND r.has_run THEN o.captured = j.price
           ELSE o.captured = 0 END
       OR (o.status = 'canceled' AND t.on_cancel = 'refuse' AND r.has_run)
       OR o.share <> j.share
    UNION ALL
    SELECT q.job_id, 'its runs are not what has_run says'
    FROM punchcard.queue q
    WHERE q.has_run <> EXISTS (SELECT FROM punchcard.attempts a
                               WHERE a.job_id = q.job_id AND (a.ended <> 'snooze' OR a.error IS NULL))
    UNION ALL
    SELECT q.job_id, 'queued on other terms than it was bought on'
    FROM punchcard.queue q JOIN punchcard.jobs j ON j.account_id = q.account_id AND j.id = q.job_id
    WHERE (q.price, q.terms_id, q.share) IS DISTINCT FROM (j.price, j.terms_id, j.share)
    UNION ALL
    SELECT d.job_id, 'deferred at another price than it was bought at'
    FROM punchcard.deferred_entries d JOIN punchcard.jobs j ON j.account_id = d.account_id AND j.id = d.job_id
    WHERE d.price <> j.price;

-- What came in and was not used up is what is there.
CREATE VIEW punchcard.audit_i5 WITH (security_invoker = on) AS
    SELECT coalesce(e.account_id, b.account_id) AS subject,
           'in ' || coalesce(e.total, 0) || ', there ' || coalesce(b.available + b.held, 0) AS finding
    FROM (SELECT i.account_id, sum(i.amount) AS total
          FROM (SELECT m.account_id, m.amount FROM punchcard.movements m WHERE m.kind IN ('grant', 'adjust')
                UNION ALL
                SELECT o.account_id, -o.captured FROM punchcard.kept_outcomes o
                UNION ALL
                SELECT a.account_id, -a.captured FROM punchcard.archived_entries a
                WHERE a.captured IS NOT NULL
                UNION ALL
                SELECT c.account_id, c.available + c.held FROM punchcard.carried c) i
          GROUP BY i.account_id) e
    FULL JOIN punchcard.balances b ON b.account_id = e.account_id
    WHERE coalesce(e.total, 0) <> coalesce(b.available + b.held, 0);

-- Who asked to be told of an end is, once, and of no other.
CREATE VIEW punchcard.audit_i6 WITH (security_invoker = on) AS
    SELECT o.job_id AS subject, count(d.id) || ' messages of its end instead of one' AS finding
    FROM punchcard.kept_jobs j
    JOIN punchcard.kept_outcomes o ON o.job_id = j.id
    LEFT JOIN punchcard.messages d ON d.job_id = j.id AND d.event::text = 'job.' || o.status::text
    WHERE j.webhook -> 'events' ? ('job.' || o.status::text)
    GROUP BY o.job_id HAVING count(d.id) <> 1
    UNION ALL
    SELECT d.job_id, count(*) || ' messages say ' || d.event || ' of a job that is '
                     || coalesce(o.status::text, 'unfinished')
    FROM punchcard.messages d
    LEFT JOIN punchcard.jobs j ON j.account_id = d.account_id AND j.id = d.job_id
    LEFT JOIN punchcard.outcomes o ON o.job_id = d.job_id
    WHERE d.event IN ('job.succeeded', 'job.failed', 'job.canceled')
      AND d.job_id >= (SELECT r.archived_before FROM punchcard.retention r)
    GROUP BY d.job_id, d.event, o.status, j.id, j.webhook
    HAVING count(*) > 1 OR j.id IS NULL OR d.event::text IS DISTINCT FROM 'job.' || o.status::text
        OR NOT coalesce(j.webhook -> 'events' ? d.event::text, true);

CREATE VIEW punchcard.audit WITH (security_invoker = on) AS
    SELECT 'I0' AS invariant, * FROM punchcard.audit_i0
    UNION ALL SELECT 'I1', * FROM punchcard.audit_i1
    UNION ALL SELECT 'I2', * FROM punchcard.audit_i2
    UNION ALL SELECT 'I3', * FROM punchcard.audit_i3
    UNION ALL SELECT 'I4', * FROM punchcard.audit_i4
    UNION ALL SELECT 'I5', * FROM punchcard.audit_i5
    UNION ALL SELECT 'I6', * FROM punchcard.audit_i6;
