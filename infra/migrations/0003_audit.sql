-- What must never be. Each view answers no row when all is well (invariants I1 to I5 in docs/ARCHITECTURE.md).

CREATE VIEW punchcard.audit_i1 WITH (security_invoker = on) AS  -- final <=> finished <=> no open hold; none outlives its life
    SELECT j.id AS subject, 'finished job with an open hold' AS finding
    FROM punchcard.jobs j
    WHERE j.finished_at IS NOT NULL AND j.price > 0
      AND NOT EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = j.id AND l.kind IN ('capture', 'release'))
    UNION ALL
    SELECT j.id, 'status and finished_at disagree'
    FROM punchcard.jobs j
    WHERE (j.status IN ('succeeded', 'failed', 'canceled')) <> (j.finished_at IS NOT NULL)
    UNION ALL
    SELECT j.id, 'unfinished two ticks after it expired'
    FROM punchcard.jobs j
    WHERE j.finished_at IS NULL AND j.expires_at < now() - interval '2 minutes';

CREATE VIEW punchcard.audit_i2 WITH (security_invoker = on) AS  -- balances are the sums of their entries, entry by entry
    SELECT a.id AS subject, 'balance is not the sum of its entries' AS finding
    FROM punchcard.accounts a
    LEFT JOIN (SELECT account_id, sum(available_delta) AS available, sum(held_delta) AS held
               FROM punchcard.ledger GROUP BY account_id) l ON l.account_id = a.id
    WHERE (a.available, a.held) IS DISTINCT FROM (coalesce(l.available, 0), coalesce(l.held, 0))
       OR a.available < 0 OR a.held < 0
    UNION ALL
    SELECT r.account_id, 'entry ' || r.id || ' does not continue the balance'
    FROM (SELECT l.id, l.account_id, l.available_after, l.held_after,
                 sum(l.available_delta) OVER so_far AS available, sum(l.held_delta) OVER so_far AS held
          FROM punchcard.ledger l
          WINDOW so_far AS (PARTITION BY l.account_id ORDER BY l.id)) r
    WHERE (r.available_after, r.held_after) IS DISTINCT FROM (r.available, r.held);

CREATE VIEW punchcard.audit_i3 WITH (security_invoker = on) AS  -- every priced job has exactly one hold, of its price; none without a job
    SELECT j.id AS subject, 'job has ' || count(l.id) || ' holds' AS finding
    FROM punchcard.jobs j LEFT JOIN punchcard.ledger l ON l.job_id = j.id AND l.kind = 'hold'
    GROUP BY j.id, j.price
    HAVING count(l.id) <> CASE WHEN j.price > 0 THEN 1 ELSE 0 END OR coalesce(sum(l.held_delta), 0) <> j.price
    UNION ALL
    SELECT l.job_id, l.kind || ' without its job'
    FROM punchcard.ledger l LEFT JOIN punchcard.jobs j ON j.id = l.job_id AND j.account_id = l.account_id
    WHERE l.kind IN ('hold', 'capture', 'release') AND j.id IS NULL;

CREATE VIEW punchcard.audit_i4 WITH (security_invoker = on) AS  -- what became of the hold is what became of the job
    SELECT j.id AS subject,
           j.status || ' but captured ' || coalesce(l.captured, 0) || ' and released ' || coalesce(l.released, 0) AS finding
    FROM punchcard.jobs j
    LEFT JOIN (SELECT job_id, -sum(held_delta) FILTER (WHERE kind = 'capture') AS captured,
                      sum(available_delta) FILTER (WHERE kind = 'release') AS released
               FROM punchcard.ledger WHERE kind IN ('capture', 'release') GROUP BY job_id) l ON l.job_id = j.id
    WHERE (coalesce(l.captured, 0), coalesce(l.released, 0)) IS DISTINCT FROM
          CASE WHEN j.status = 'succeeded' THEN (j.price::numeric, 0::numeric)
               WHEN j.status IN ('failed', 'canceled') THEN (0::numeric, j.price::numeric)
               ELSE (0::numeric, 0::numeric) END
    UNION ALL
    SELECT l.job_id, count(*) || ' entries of kind ' || l.kind
    FROM punchcard.ledger l WHERE l.job_id IS NOT NULL GROUP BY l.job_id, l.kind HAVING count(*) > 1;

CREATE VIEW punchcard.audit_i5 WITH (security_invoker = on) AS  -- what came in and was not used up is what is there
    SELECT NULL::uuid AS subject, 'in ' || e.total || ', there ' || a.total AS finding
    FROM (SELECT coalesce(sum(available_delta) FILTER (WHERE kind IN ('grant', 'adjust')), 0)
                 + coalesce(sum(held_delta) FILTER (WHERE kind = 'capture'), 0) AS total FROM punchcard.ledger) e,
         (SELECT coalesce(sum(available + held), 0) AS total FROM punchcard.accounts) a
    WHERE e.total <> a.total;

CREATE VIEW punchcard.audit WITH (security_invoker = on) AS
    SELECT 'I1' AS invariant, * FROM punchcard.audit_i1
    UNION ALL SELECT 'I2', * FROM punchcard.audit_i2
    UNION ALL SELECT 'I3', * FROM punchcard.audit_i3
    UNION ALL SELECT 'I4', * FROM punchcard.audit_i4
    UNION ALL SELECT 'I5', * FROM punchcard.audit_i5;

-- Nobody by default, by name where Supabase grants by name; then the service role alone.
REVOKE ALL ON ALL TABLES IN SCHEMA punchcard FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA punchcard FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA punchcard FROM %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'service_role') THEN
        GRANT USAGE ON SCHEMA punchcard TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.enqueue(uuid, text, json, text) TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.grant_credits(uuid, bigint, text, text) TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits(uuid, bigint, text, uuid, text) TO service_role;
    END IF;
END $$;
