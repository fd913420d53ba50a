-- Of `find_jobs`, those that have all of p_labels, perhaps of one status and kind. `walked` is the label that
-- it went by.
CREATE OR REPLACE FUNCTION punchcard.find_labeled_jobs(
    p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid, OUT walked text)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    unfinished boolean;
BEGIN
    unfinished := p_status IN ('queued', 'running');
    -- By the label that the fewest jobs have, as far as is looked.
    SELECT l.label INTO walked
    FROM unnest(p_labels) WITH ORDINALITY AS l (label, n), LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT FROM punchcard.labels w
            WHERE w.account_id = p_account_id AND w.label = l.label AND w.job_id < p_before
            LIMIT 10000) w) c
    ORDER BY c.jobs, l.n LIMIT 1;
    ids := ARRAY(
        SELECT w.job_id FROM (
            SELECT l.job_id FROM punchcard.labels l
            WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < p_before
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
    IF cardinality(ids) < p_limit THEN
        SELECT l.job_id INTO next_before FROM punchcard.labels l
        WHERE l.account_id = p_account_id AND l.label = walked AND l.job_id < p_before
        ORDER BY l.job_id DESC OFFSET 9999 LIMIT 1;
    END IF;
END $$;
