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
           CASE WHEN kind = 'hold' THEN -amount WHEN kind = 'capture' THEN 0 ELSE amount END
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

-- The archive's rows that have entries of the accounts behind p_after up to p_last.
CREATE FUNCTION punchcard.archive_between(p_after uuid, p_last uuid) RETURNS SETOF punchcard.archive
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT a.* FROM punchcard.archived_months m
        JOIN punchcard.archive a ON a.end_id = m.end_id
        WHERE m.end_id <= (SELECT r.archived_before FROM punchcard.retention r)
          AND (p_after IS NULL OR a.first_account > p_after) AND a.first_account <= p_last
        UNION ALL
        -- And what begins before them, and ends among them.
        SELECT a.* FROM punchcard.archived_months m
        CROSS JOIN LATERAL (SELECT b.first_account FROM punchcard.archive b
                            WHERE b.end_id = m.end_id AND b.first_account <= p_after
                            ORDER BY b.first_account DESC LIMIT 1) f
        JOIN punchcard.archive a
            ON a.end_id = m.end_id AND a.first_account = f.first_account AND a.last_account > p_after
        WHERE m.end_id <= (SELECT r.archived_before FROM punchcard.retention r);
    END;

-- What is left now of an account's grants with a date, of those that had some when it was last dealt with:
-- what was spent since is taken from what lapses first. What came in since, but for such grants, lapses
-- never.
CREATE FUNCTION punchcard.dated_left(p_account_id uuid)
    RETURNS TABLE (entry bigint, expires_at timestamptz, left_over bigint)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        WITH since AS MATERIALIZED (
            SELECT d.total - b.available - b.held + coalesce((
                       SELECT sum(m.amount) FROM punchcard.movements m
                       WHERE m.account_id = p_account_id AND m.share = 0 AND m.entry > d.entry
                         AND m.amount > 0 AND m.kind IN ('grant', 'adjust')), 0) AS spent
            FROM punchcard.dated_accounts d JOIN punchcard.balances b ON b.account_id = d.account_id
            WHERE d.account_id = p_account_id
        )
        SELECT w.entry, w.expires_at,
               (w.left_over - least(w.left_over, greatest(s.spent - w.before, 0)))::bigint
        FROM since s,
             (SELECT g.entry, g.expires_at, g.left_over,
                     sum(g.left_over) OVER (ORDER BY g.expires_at, g.entry) - g.left_over AS before
              FROM punchcard.dated_grants g
              WHERE g.account_id = p_account_id AND g.left_over > 0) w;
    END;

-- What is wrong with the accounts behind p_after up to p_last, and with their jobs (I1 to I6 in
-- docs/ARCHITECTURE.md): no row when all is well. Each account is looked at by itself, so that all of them
-- can be, one part after the other (`audit_accounts`). What a part has is read once.
CREATE FUNCTION punchcard.audit_between(p_after uuid, p_last uuid)
    RETURNS TABLE (invariant text, subject uuid, finding text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        WITH moved AS MATERIALIZED (
            SELECT m.* FROM punchcard.movements m
            WHERE (p_after IS NULL OR m.account_id > p_after) AND m.account_id <= p_last
        ), bought AS MATERIALIZED (
            SELECT j.account_id, j.id, j.share, j.price, j.entry, j.available_after, j.held_after, j.terms_id,
                   j.kind, j.max_attempts, j.webhook -> 'events' AS events
            FROM punchcard.kept_jobs j
            WHERE (p_after IS NULL OR j.account_id > p_after) AND j.account_id <= p_last
        ), queued AS MATERIALIZED (
            SELECT q.*
            FROM bought b
            CROSS JOIN LATERAL (SELECT q.job_id, q.account_id, q.share, q.price, q.bytes, q.terms_id,
                                       q.has_run, q.kind, q.max_attempts
                                FROM punchcard.queue q WHERE q.job_id = b.id LIMIT 1) q
            WHERE q.account_id = b.account_id
        ), ended AS MATERIALIZED (
            SELECT o.job_id, o.account_id, o.share, o.captured, o.status::text AS status,
                   o.error ->> 'code' AS code, o.run_started_at IS NOT NULL AS was_running,
                   o.entry IS NULL AS is_deferred, d.price AS deferred_price,
                   (d.account_id, d.share, d.captured) = (o.account_id, o.share, o.captured) AS is_entered,
                   coalesce(o.entry, d.entry) AS entry,
                   coalesce(o.available_after, d.available_after) AS available_after,
                   coalesce(o.held_after, d.held_after) AS held_after
            FROM punchcard.kept_outcomes o
            LEFT JOIN LATERAL (SELECT d.* FROM punchcard.deferred_entries d
                               WHERE d.job_id = o.job_id LIMIT 1) d ON true
            WHERE (p_after IS NULL OR o.account_id > p_after) AND o.account_id <= p_last
        ), done AS MATERIALIZED (
            SELECT b.id, b.account_id, b.price, b.terms_id, b.share = e.share AS is_of_share, b.events,
                   e.captured, e.status, e.code, e.was_running, e.is_deferred, e.deferred_price
            FROM bought b JOIN ended e ON e.account_id = b.account_id AND e.job_id = b.id
        ), archive AS MATERIALIZED (
            SELECT a.* FROM punchcard.archive_between(p_after, p_last) a
        ), archived AS MATERIALIZED (
            SELECT e.account_id, e.share, e.entry, e.job_id, e.price, e.captured, e.available_after,
                   e.held_after
            FROM archive a,
                 unnest(a.accounts, a.shares, a.entries, a.job_ids, a.prices, a.captured, a.available_after,
                        a.held_after)
                     AS e (account_id, share, entry, job_id, price, captured, available_after, held_after)
            WHERE (p_after IS NULL OR e.account_id > p_after) AND e.account_id <= p_last
        ), gaps AS MATERIALIZED (
            SELECT c.* FROM punchcard.carried c
            WHERE (p_after IS NULL OR c.account_id > p_after) AND c.account_id <= p_last
        ), numbered AS MATERIALIZED (
            -- What each numbered row did to its account's share: a movement, a hold, or the end of one.
            SELECT m.account_id, m.share, m.entry, m.amount AS available_delta, 0::bigint AS held_delta,
                   m.available_after, m.held_after
            FROM moved m
            UNION ALL
            SELECT b.account_id, b.share, b.entry, -b.price, b.price, b.available_after, b.held_after
            FROM bought b
            UNION ALL
            SELECT e.account_id, e.share, e.entry, b.price - e.captured, -b.price, e.available_after,
                   e.held_after
            FROM ended e JOIN bought b ON b.account_id = e.account_id AND b.id = e.job_id
            WHERE e.entry IS NOT NULL
            UNION ALL
            SELECT a.account_id, a.share, a.entry, a.price - coalesce(a.captured, 2 * a.price),
                   CASE WHEN a.captured IS NULL THEN a.price ELSE -a.price END, a.available_after,
                   a.held_after
            FROM archived a
        ), run AS (
            -- Numbers and balances as they should be: so far, or since the last gap.
            SELECT s.*, sum(s.entries) OVER so_far AS n,
                   CASE WHEN s.gaps = 0 THEN 0
                        ELSE first_value(s.available_after - s.available_delta) OVER since_gap END
                       + sum(s.available_delta) OVER since_gap AS available,
                   CASE WHEN s.gaps = 0 THEN 0
                        ELSE first_value(s.held_after - s.held_delta) OVER since_gap END
                       + sum(s.held_delta) OVER since_gap AS held
            FROM (SELECT i.*, coalesce(sum(i.is_gap) OVER (
                             PARTITION BY i.account_id, i.share ORDER BY i.entry
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS gaps
                  FROM (SELECT n.*, 1 AS entries, 0 AS is_gap FROM numbered n
                        UNION ALL
                        SELECT g.account_id, g.share, upper(r) - 1, 0, 0, 0, 0, upper(r) - lower(r), 1
                        FROM gaps g, unnest(g.numbers) AS r) i) s
            WINDOW so_far AS (PARTITION BY s.account_id, s.share ORDER BY s.entry
                              ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
                   since_gap AS (PARTITION BY s.account_id, s.share, s.gaps ORDER BY s.entry
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
        -- I1. Unfinished <=> queued <=> open hold.
        SELECT 'I1', b.id, 'job is in neither queue nor outcomes, or in both'
        FROM bought b
        LEFT JOIN queued q ON q.job_id = b.id
        LEFT JOIN ended e ON e.job_id = b.id AND e.account_id = b.account_id
        WHERE (q.job_id IS NULL) = (e.job_id IS NULL)
        UNION ALL
        SELECT 'I1', e.job_id,
               'what it moved is entered ' || CASE WHEN e.is_deferred THEN 'nowhere' ELSE 'twice' END
        FROM ended e WHERE e.is_deferred = (e.is_entered IS NOT TRUE)
        UNION ALL
        SELECT 'I1', e.job_id, 'no such job was bought'
        FROM ended e
        WHERE NOT EXISTS (SELECT FROM bought b WHERE b.account_id = e.account_id AND b.id = e.job_id)
        UNION ALL
        -- I2. Balances are the sums of their entries, entry by entry, and no entry is missing: they count 1,
        -- 2, 3, … in each share. What is carried is a gap: as many are missing there, and the balance goes on
        -- behind it.
        SELECT 'I2', a.id, 'balance is not the sum of its ' || a.entries || ' entries'
        FROM punchcard.accounts a
        LEFT JOIN (SELECT n.account_id, n.share, count(*) AS entries, sum(n.available_delta) AS available,
                          sum(n.held_delta) AS held
                   FROM numbered n GROUP BY n.account_id, n.share) e
            ON e.account_id = a.id AND e.share = a.share
        LEFT JOIN gaps c ON c.account_id = a.id AND c.share = a.share
        WHERE (p_after IS NULL OR a.id > p_after) AND a.id <= p_last
          AND ((a.available, a.held, a.entries)
               IS DISTINCT FROM (coalesce(e.available, 0) + coalesce(c.available, 0),
                                 coalesce(e.held, 0) + coalesce(c.held, 0),
                                 coalesce(e.entries, 0) + coalesce(c.entries, 0))
               OR a.available < 0 OR a.held < 0
               OR c.entries <> (SELECT sum(upper(r) - lower(r)) FROM unnest(c.numbers) AS r))
        UNION ALL
        SELECT 'I2', a.id, 'unfinished ' || a.unfinished_jobs || ' jobs, ' || a.unfinished_bytes
                           || ' bytes, but queued ' || coalesce(q.jobs, 0) || ', ' || coalesce(q.bytes, 0)
        FROM punchcard.accounts a
        LEFT JOIN (SELECT u.account_id, u.share, count(*) AS jobs, sum(u.bytes) AS bytes
                   FROM (SELECT q.account_id, q.share, q.bytes FROM queued q
                         UNION ALL
                         SELECT d.account_id, d.share, d.bytes FROM punchcard.deferred_entries d
                         WHERE d.entry IS NULL AND (p_after IS NULL OR d.account_id > p_after)
                           AND d.account_id <= p_last) u
                   GROUP BY u.account_id, u.share) q ON q.account_id = a.id AND q.share = a.share
        WHERE (p_after IS NULL OR a.id > p_after) AND a.id <= p_last
          AND (a.unfinished_jobs, a.unfinished_bytes)
              IS DISTINCT FROM (coalesce(q.jobs, 0), coalesce(q.bytes, 0))
        UNION ALL
        SELECT 'I2', r.account_id, 'entry ' || r.entry || ' of share ' || r.share || ' is number ' || r.n
                                   || ', or does not continue the balance'
        FROM run r
        WHERE r.is_gap = 0
          AND (r.entry, r.available_after, r.held_after) IS DISTINCT FROM (r.n, r.available, r.held)
        UNION ALL
        SELECT 'I2', n.account_id, 'entry ' || n.entry || ' is of no account'
        FROM (SELECT m.account_id, m.share, m.entry FROM moved m
              UNION ALL SELECT b.account_id, b.share, b.entry FROM bought b
              UNION ALL SELECT e.account_id, e.share, e.entry FROM ended e
              UNION ALL SELECT a.account_id, a.share, a.entry FROM archived a
              UNION ALL SELECT g.account_id, g.share, upper(g.numbers) - 1 FROM gaps g) n
        WHERE NOT EXISTS (SELECT FROM punchcard.accounts a WHERE a.id = n.account_id AND a.share = n.share)
        UNION ALL
        -- A row of the archive is what its columns say, by which it is found.
        SELECT 'I2', a.first_account, 'its archive row ' || a.first_share || '/' || a.first_entry || ' of '
                                      || a.end_id || ' is not in order'
        FROM archive a
        WHERE (p_after IS NULL OR a.first_account > p_after) AND a.first_account <= p_last
          AND ((a.first_account, a.first_share, a.first_entry, a.last_account)
                   IS DISTINCT FROM (a.accounts[1], a.shares[1], a.entries[1],
                                     a.accounts[cardinality(a.accounts)])
               OR cardinality(a.accounts) <> ANY (ARRAY[
                      cardinality(a.shares), cardinality(a.entries), cardinality(a.at),
                      cardinality(a.job_ids), cardinality(a.prices), cardinality(a.captured),
                      cardinality(a.available_after),
                      cardinality(a.held_after)])
               OR EXISTS (SELECT FROM (
                      SELECT ROW(e.account_id, e.share, e.entry)
                             <= lag(ROW(e.account_id, e.share, e.entry)) OVER (ORDER BY e.place) AS is_late
                      FROM unnest(a.accounts, a.shares, a.entries) WITH ORDINALITY
                               AS e (account_id, share, entry, place)) o
                      WHERE o.is_late))
        UNION ALL
        SELECT 'I2', m.account_id,
               'entry ' || m.entry || ' lacks its key, or is of a kind that is no movement'
        FROM moved m
        WHERE (m.idempotency_key IS NOT NULL) <> (m.kind IN ('grant', 'adjust', 'expire'))
           OR m.kind NOT IN ('grant', 'adjust', 'expire', 'shift')
        UNION ALL
        SELECT 'I2', m.account_id, count(*) || ' movements have the key ' || m.idempotency_key
        FROM moved m WHERE m.idempotency_key IS NOT NULL
        GROUP BY m.account_id, m.idempotency_key HAVING count(*) > 1
        UNION ALL
        -- I3. A job is charged by its hold alone, which is its row: no movement names a job but one that
        -- gives back for it, once, to the account that bought it.
        SELECT 'I3', m.job_id, m.kind || ' of ' || m.amount || ' names a job: it is charged by its hold alone'
        FROM moved m WHERE m.job_id IS NOT NULL AND (m.kind <> 'adjust' OR m.amount < 0)
        UNION ALL
        SELECT 'I3', l.job_id, l.kind || ' without its job'
        FROM (SELECT m.account_id, m.job_id, m.kind FROM moved m
              WHERE m.job_id >= (SELECT r.carrying_before FROM punchcard.retention r)
                AND NOT EXISTS (SELECT FROM punchcard.jobs j
                                WHERE j.account_id = m.account_id AND j.id = m.job_id)
              EXCEPT
              SELECT a.account_id, a.job_id, 'adjust' FROM archived a WHERE a.captured IS NULL) l
        UNION ALL
        SELECT 'I3', m.job_id, count(*) || ' entries give back for it'
        FROM moved m WHERE m.job_id IS NOT NULL GROUP BY m.job_id HAVING count(*) > 1
        UNION ALL
        SELECT 'I3', b.id, 'held ' || b.price || ' on terms that are not there, or of another kind'
        FROM bought b LEFT JOIN punchcard.kind_terms t ON t.id = b.terms_id AND t.kind = b.kind
        WHERE t.id IS NULL AND b.price > 0 OR b.price < 0
        UNION ALL
        -- I4. What became of the hold is what became of the job, as its terms say.
        SELECT 'I4', d.id,
               d.status || ' but captured ' || d.captured || ' and released ' || d.price - d.captured
        FROM done d
        LEFT JOIN punchcard.kind_terms t ON t.id = d.terms_id
        -- As `has_run` in the queue, or while it ran: then that run ended it.
        CROSS JOIN LATERAL (
            SELECT CASE WHEN d.status = 'canceled' THEN d.was_running OR EXISTS (
                SELECT FROM punchcard.attempts a
                WHERE a.job_id = d.id AND (a.ended <> 'snooze' OR a.error IS NULL)) END
        ) r (has_run)
        WHERE NOT CASE
              WHEN d.status = 'succeeded'
                  THEN d.captured BETWEEN CASE WHEN t.metered THEN 0 ELSE d.price END AND d.price
              WHEN d.status = 'failed' AND t.on_input_error = 'capture' AND d.code = 'invalid_input'
                  THEN d.captured IN (0, d.price)
              WHEN d.status = 'canceled' AND t.on_cancel = 'capture' AND r.has_run THEN d.captured = d.price
              ELSE d.captured = 0 END
           OR (d.status = 'canceled' AND t.on_cancel = 'refuse' AND r.has_run)
           OR NOT d.is_of_share
        UNION ALL
        SELECT 'I4', q.job_id, 'its runs are not what has_run says'
        FROM queued q
        WHERE q.has_run <> EXISTS (SELECT FROM punchcard.attempts a
                                   WHERE a.job_id = q.job_id AND (a.ended <> 'snooze' OR a.error IS NULL))
        UNION ALL
        SELECT 'I4', q.job_id, 'queued on other terms than it was bought on'
        FROM queued q JOIN bought b ON b.id = q.job_id
        WHERE (q.price, q.terms_id, q.share, q.kind, q.max_attempts)
              IS DISTINCT FROM (b.price, b.terms_id, b.share, b.kind, b.max_attempts)
        UNION ALL
        SELECT 'I4', d.id, 'deferred at another price than it was bought at'
        FROM done d WHERE d.is_deferred AND d.deferred_price <> d.price
        UNION ALL
        -- I5. What came in and was not used up is what is there.
        SELECT 'I5', coalesce(e.account_id, b.account_id),
               'in ' || coalesce(e.total, 0) || ', there ' || coalesce(b.available + b.held, 0)
        FROM (SELECT i.account_id, sum(i.amount) AS total
              FROM (SELECT m.account_id, m.amount FROM moved m WHERE m.kind IN ('grant', 'adjust', 'expire')
                    UNION ALL
                    SELECT e.account_id, -e.captured FROM ended e
                    UNION ALL
                    SELECT a.account_id, -a.captured FROM archived a WHERE a.captured IS NOT NULL
                    UNION ALL
                    SELECT g.account_id, g.available + g.held FROM gaps g) i
              GROUP BY i.account_id) e
        FULL JOIN (SELECT b.* FROM punchcard.balances b
                   WHERE (p_after IS NULL OR b.account_id > p_after) AND b.account_id <= p_last) b
            ON b.account_id = e.account_id
        WHERE coalesce(e.total, 0) <> coalesce(b.available + b.held, 0)
        UNION ALL
        SELECT 'I5', d.account_id,
               'of ' || b.available + b.held || ' credits ' || sum(l.left_over) || ' lapse'
        FROM punchcard.dated_accounts d
        JOIN punchcard.balances b ON b.account_id = d.account_id
        CROSS JOIN LATERAL punchcard.dated_left(d.account_id) l
        WHERE (p_after IS NULL OR d.account_id > p_after) AND d.account_id <= p_last
        GROUP BY d.account_id, b.available, b.held HAVING sum(l.left_over) > b.available + b.held
        UNION ALL
        SELECT 'I5', g.account_id,
               'of grant ' || g.entry || ' ' || g.left_over || ' are left, and not so many were granted'
        FROM punchcard.dated_grants g
        WHERE (p_after IS NULL OR g.account_id > p_after) AND g.account_id <= p_last AND g.left_over > 0
          -- One that was carried, and still has credits, is taken at its word.
          AND g.left_over > (SELECT m.amount FROM moved m
                             WHERE m.account_id = g.account_id AND m.share = 0 AND m.entry = g.entry)
        UNION ALL
        SELECT 'I5', g.account_id, 'has grants with a date, and nothing says what it had spent of them'
        FROM punchcard.dated_grants g
        WHERE (p_after IS NULL OR g.account_id > p_after) AND g.account_id <= p_last AND g.left_over > 0
          AND NOT EXISTS (SELECT FROM punchcard.dated_accounts d WHERE d.account_id = g.account_id)
        GROUP BY g.account_id
        UNION ALL
        SELECT 'I5', e.account_id, 'erased, and not closed'
        FROM punchcard.erasures e JOIN punchcard.accounts a ON a.id = e.account_id
        WHERE (p_after IS NULL OR e.account_id > p_after) AND e.account_id <= p_last AND a.spread <> 0
        GROUP BY e.account_id
        UNION ALL
        -- I6. Who asked to be told of an end is, once. Of an account that is erased nobody is told.
        SELECT 'I6', d.id, m.number || ' messages of its end instead of one'
        FROM done d
        CROSS JOIN LATERAL (SELECT count(*) AS number FROM punchcard.messages m
                            WHERE m.job_id = d.id AND m.event::text = 'job.' || d.status) m
        WHERE d.events ? ('job.' || d.status) AND m.number <> 1
          AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = d.account_id);
    END;

-- What is wrong with rows that name a job, of those behind p_after up to p_last, and no row when all is well:
-- what is in the queue, waits to be entered, or is or was to be said, although there is no such job, or
-- though its time is over.
CREATE FUNCTION punchcard.audit_rows_between(p_after uuid, p_last uuid)
    RETURNS TABLE (invariant text, subject uuid, finding text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT 'I1', q.job_id, 'no such job was bought'
        FROM punchcard.queue q
        WHERE (p_after IS NULL OR q.job_id > p_after) AND q.job_id <= p_last
          AND NOT EXISTS (SELECT FROM punchcard.kept_jobs j
                          WHERE j.account_id = q.account_id AND j.id = q.job_id)
        UNION ALL
        SELECT 'I1', q.job_id, 'unfinished two ticks after it expired'
        FROM punchcard.queue q
        WHERE (p_after IS NULL OR q.job_id > p_after) AND q.job_id <= p_last
          AND q.expires_at < now() - interval '2 minutes'
        UNION ALL
        SELECT 'I1', q.job_id, 'waits two ticks after it was to be called back, or is leased meanwhile'
        FROM punchcard.queue q
        WHERE (p_after IS NULL OR q.job_id > p_after) AND q.job_id <= p_last
          AND (q.waiting_until < now() - interval '2 minutes'
               OR (q.waiting_until IS NOT NULL AND q.lease_expires_at IS NOT NULL))
        UNION ALL
        SELECT 'I1', d.job_id, 'what it moved is entered twice'
        FROM punchcard.deferred_entries d
        WHERE (p_after IS NULL OR d.job_id > p_after) AND d.job_id <= p_last
          AND NOT EXISTS (SELECT FROM punchcard.kept_outcomes o
                          WHERE o.job_id = d.job_id
                            AND (o.account_id, o.share, o.captured) = (d.account_id, d.share, d.captured))
        UNION ALL
        -- I6. Nobody is told of another end, or twice.
        SELECT 'I6', d.job_id, count(*) || ' messages say ' || d.event || ' of a job that is '
                               || coalesce(o.status::text, 'unfinished')
        FROM punchcard.messages d
        LEFT JOIN punchcard.jobs j ON j.account_id = d.account_id AND j.id = d.job_id
        LEFT JOIN punchcard.outcomes o ON o.job_id = d.job_id
        WHERE (p_after IS NULL OR d.job_id > p_after) AND d.job_id <= p_last
          AND d.event IN ('job.succeeded', 'job.failed', 'job.canceled')
          AND d.job_id >= (SELECT r.archived_before FROM punchcard.retention r)
        GROUP BY d.job_id, d.event, o.status, j.id, j.webhook
        HAVING count(*) > 1 OR j.id IS NULL OR d.event::text IS DISTINCT FROM 'job.' || o.status::text
            OR NOT coalesce(j.webhook -> 'events' ? d.event::text, true);
    END;

-- All of it at once: for a look at what is small. `punchcard credits audit` goes part by part.
CREATE VIEW punchcard.audit WITH (security_invoker = on) AS
    SELECT 'I0' AS invariant, i.subject, i.finding FROM punchcard.audit_i0 i
    UNION ALL
    SELECT a.* FROM punchcard.audit_between(NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff') a
    UNION ALL
    SELECT r.* FROM punchcard.audit_rows_between(NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff') r;
