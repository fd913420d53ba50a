-- For `claim`, under its settings: the ids of up to p_limit due jobs of the kinds that it serves, those in
-- p_named first, then by priority, then by age; their rows are locked, and what others have locked is passed
-- over. p_after_* are as there. What others serve, and what is delayed, is never read.
CREATE OR REPLACE FUNCTION punchcard.lock_due(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_after_kinds text[],
    p_after_priorities smallint[], p_after_run_ats bigint[], p_after_ids uuid[], p_named uuid[],
    p_woken boolean, OUT due uuid[])
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- From, not in the list: there it is put in place of the call, and not parsed for each claim.
    served text[] := ARRAY(SELECT s.kind
                           FROM punchcard.served_kinds(p_kinds, p_http, p_budget, p_woken) AS s (kind));
    level record;
    few bigint;
    until_at timestamptz;
    until_id uuid;
BEGIN
    due := '{}';
    IF p_named <> '{}' THEN
        due := ARRAY(
            SELECT q.job_id FROM punchcard.queue q
            WHERE q.job_id = ANY (p_named) AND q.lease_expires_at IS NULL AND q.waiting_until IS NULL
              AND q.run_at <= now() AND q.expires_at > now() AND q.kind = ANY (served)
            LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    FOR level IN
        -- Which kinds have something due, and behind what: one look into the index for each.
        SELECT s.priority, array_agg(s.kind) AS kinds, array_agg(s.run_at) AS run_ats, array_agg(s.id) AS ids
        FROM (SELECT l.priority::smallint AS priority, k.kind,
                     CASE WHEN a.run_at IS NULL THEN '-infinity'  -- least() would ignore it
                          ELSE least(timestamptz 'epoch' + a.run_at * interval '1 microsecond',
                                     now() - interval '5 seconds') END AS run_at,
                     coalesce(a.id, '00000000-0000-0000-0000-000000000000') AS id
              FROM generate_series(-10, 10) AS l (priority) CROSS JOIN unnest(served) AS k (kind)
              LEFT JOIN unnest(p_after_kinds, p_after_priorities, p_after_run_ats, p_after_ids)
                  AS a (kind, priority, run_at, id) ON a.kind = k.kind AND a.priority = l.priority) s,
             LATERAL (SELECT FROM punchcard.queue q
                      WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = s.kind
                        AND q.priority = s.priority AND q.run_at <= now()
                        AND (q.run_at, q.job_id) > (s.run_at, s.id) AND q.expires_at > now()
                      LIMIT 1) d
        WHERE cardinality(due) < p_limit
        GROUP BY s.priority ORDER BY s.priority DESC
    LOOP
        LOOP
            EXIT WHEN cardinality(due) >= p_limit;
            until_at := NULL;
            until_id := NULL;
            IF cardinality(level.kinds) > 1 THEN
                -- Of several kinds the oldest come first: as far as a few of each tell which these are.
                few := 1 + 2 * (p_limit - cardinality(due)) / cardinality(level.kinds);
                SELECT o.run_at, o.job_id INTO until_at, until_id
                FROM (SELECT o.run_at, o.job_id, o.n,
                             row_number() OVER (ORDER BY o.run_at, o.job_id) AS place
                      FROM unnest(level.kinds, level.run_ats, level.ids) AS s (kind, run_at, id), LATERAL (
                          SELECT q.run_at, q.job_id, row_number() OVER (ORDER BY q.run_at, q.job_id) AS n
                          FROM punchcard.queue q
                          WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = s.kind
                            AND q.priority = level.priority AND q.run_at <= now()
                            AND (q.run_at, q.job_id) > (s.run_at, s.id) AND q.expires_at > now()
                          ORDER BY q.run_at, q.job_id LIMIT few) o) o
                WHERE o.n = few OR o.place = p_limit - cardinality(due)
                ORDER BY o.run_at, o.job_id LIMIT 1;
            END IF;
            due := due || ARRAY(
                SELECT d.job_id
                FROM unnest(level.kinds, level.run_ats, level.ids) AS s (kind, run_at, id), LATERAL (
                    SELECT q.job_id FROM punchcard.queue q
                    WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = s.kind
                      AND q.priority = level.priority AND q.run_at <= now()
                      AND (q.run_at, q.job_id) > (s.run_at, s.id)
                      AND (q.run_at, q.job_id) <= (coalesce(until_at, 'infinity'), coalesce(
                              until_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                      AND q.expires_at > now() AND q.job_id <> ALL (p_named)
                    ORDER BY q.run_at, q.job_id LIMIT p_limit
                    FOR NO KEY UPDATE SKIP LOCKED) d
                LIMIT p_limit - cardinality(due));
            EXIT WHEN until_id IS NULL;
            -- Then from there, of all of them.
            level.run_ats := array_fill(until_at, ARRAY[cardinality(level.kinds)]);
            level.ids := array_fill(until_id, ARRAY[cardinality(level.kinds)]);
        END LOOP;
    END LOOP;
END $$;
