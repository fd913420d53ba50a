-- The ids of an account's jobs, newest first, before p_before: up to p_limit of those of one status and kind,
-- if these are given, that have all of p_labels. Walks past 10,000 others at most, whatever the history.
-- `next_before` is where the next page begins, also if nothing was found so far; NULL when there is no more.
CREATE OR REPLACE FUNCTION punchcard.find_jobs(
    p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    -- Planned once, since a plan over all months costs more than a page: which of them are read is found when
    -- it is run. By scalar sub-selects, each by its key, job by job.
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_sort = off SET jit = off AS $$
DECLARE
    before uuid := coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    unfinished boolean := p_status IN ('queued', 'running');
    recent uuid;
    walked text;
    there bigint;
    found_here bigint;
BEGIN
    IF unfinished THEN
        -- The account counts them: the walk ends with the last of so many.
        SELECT coalesce(sum(a.unfinished_jobs), 0) INTO there FROM punchcard.accounts a
        WHERE a.id = p_account_id;
        IF there = 0 THEN
            ids := '{}';
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_labels) > 0 THEN
        -- By the label that the fewest jobs have, as far as is looked.
        SELECT l.label INTO walked
        FROM unnest(p_labels) WITH ORDINALITY AS l (label, n), LATERAL (
            SELECT count(*) AS jobs FROM (
                SELECT FROM punchcard.labels w
                WHERE w.account_id = p_account_id AND w.label = l.label AND w.job_id < before
                LIMIT 10000) w) c
        ORDER BY c.jobs, l.n LIMIT 1;
        ids := ARRAY(
            SELECT w.job_id FROM (
                SELECT l.job_id FROM punchcard.labels l
                WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < before
                ORDER BY l.job_id DESC LIMIT 10000) w
            WHERE NOT EXISTS (
                SELECT FROM unnest(array_remove(p_labels, walked)) o (label) WHERE (
                    SELECT l.job_id FROM punchcard.labels l
                    WHERE l.account_id = p_account_id AND l.label = o.label AND l.job_id = w.job_id) IS NULL)
              AND (p_kind IS NULL
                   OR (SELECT j.kind FROM punchcard.jobs j
                       WHERE j.account_id = p_account_id AND j.id = w.job_id) = p_kind)
              AND (p_status IS NULL OR p_status = CASE WHEN unfinished THEN (
                       SELECT CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued'
                                   ELSE 'running' END
                       FROM punchcard.queue q WHERE q.job_id = w.job_id)
                   ELSE (SELECT o.status::text FROM punchcard.outcomes o WHERE o.job_id = w.job_id) END)
            ORDER BY w.job_id DESC LIMIT p_limit);
    ELSIF unfinished THEN
        ids := ARRAY(
            SELECT w.id FROM (
                SELECT j.id, j.kind, q.status
                FROM (SELECT j.id, j.kind FROM punchcard.jobs j
                      WHERE j.account_id = p_account_id AND j.id < before
                      ORDER BY j.id DESC LIMIT 10000) j,
                     LATERAL (SELECT CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL
                                          THEN 'queued' ELSE 'running' END AS status
                              FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
                ORDER BY j.id DESC LIMIT there) w
            WHERE w.status = p_status AND (p_kind IS NULL OR w.kind = p_kind)
            ORDER BY w.id DESC LIMIT p_limit);
        IF cardinality(ids) < p_limit THEN
            -- If all of them are among the newest 10,000 jobs, there is none further on.
            SELECT count(*) INTO found_here FROM (
                SELECT FROM (SELECT j.id FROM punchcard.jobs j WHERE j.account_id = p_account_id
                             ORDER BY j.id DESC LIMIT 10000) j,
                            LATERAL (SELECT FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
                LIMIT there) f;
            IF found_here = there THEN
                RETURN;
            END IF;
        END IF;
    ELSIF p_status IN ('failed', 'canceled') THEN
        ids := ARRAY(
            SELECT w.job_id
            FROM (SELECT o.job_id FROM punchcard.outcomes o
                  WHERE o.account_id = p_account_id AND o.status <> 'succeeded'
                    AND o.status = p_status::punchcard.final_status AND o.job_id < before
                  ORDER BY o.job_id DESC LIMIT 10000) w
            WHERE p_kind IS NULL
               OR (SELECT j.kind FROM punchcard.jobs j
                   WHERE j.account_id = p_account_id AND j.id = w.job_id) = p_kind
            ORDER BY w.job_id DESC LIMIT p_limit);
        IF cardinality(ids) < p_limit THEN
            SELECT o.job_id INTO next_before FROM punchcard.outcomes o
            WHERE o.account_id = p_account_id AND o.status <> 'succeeded'
              AND o.status = p_status::punchcard.final_status AND o.job_id < before
            ORDER BY o.job_id DESC OFFSET 9999 LIMIT 1;
            RETURN;
        END IF;
    ELSIF p_status IS NULL AND p_kind IS NULL THEN
        -- As a rule the last month or two have a page of them, and the others need not be opened.
        recent := punchcard.first_id(
            coalesce(least(now(), punchcard.uuid_time(p_before)), now()) - interval '240 hours');
        ids := ARRAY(
            SELECT j.id FROM punchcard.jobs j
            WHERE j.account_id = p_account_id AND j.id < before
              AND j.id >= recent
            ORDER BY j.id DESC LIMIT p_limit);
        IF cardinality(ids) < p_limit THEN
            ids := ARRAY(
                SELECT j.id FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < before
                ORDER BY j.id DESC LIMIT p_limit);
            IF cardinality(ids) < p_limit THEN
                RETURN;
            END IF;
        END IF;
    ELSE
        ids := ARRAY(
            SELECT w.id
            FROM (SELECT j.id, j.kind FROM punchcard.jobs j
                  WHERE j.account_id = p_account_id AND j.id < before
                  ORDER BY j.id DESC LIMIT 10000) w
            WHERE (p_kind IS NULL OR w.kind = p_kind)
              AND (p_status IS NULL
                   OR (SELECT o.status::text FROM punchcard.outcomes o WHERE o.job_id = w.id) = p_status)
            ORDER BY w.id DESC LIMIT p_limit);
    END IF;

    IF cardinality(ids) = p_limit THEN
        next_before := ids[p_limit];
    ELSIF walked IS NOT NULL THEN
        SELECT l.job_id INTO next_before FROM punchcard.labels l
        WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < before
        ORDER BY l.job_id DESC OFFSET 9999 LIMIT 1;
    ELSE
        SELECT j.id INTO next_before FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < before
        ORDER BY j.id DESC OFFSET 9999 LIMIT 1;
    END IF;
END $$;
