-- Of `find_jobs`, the queued or the running ones, perhaps of one kind. The account has p_there that are
-- unfinished: the walk ends with the last of so many.
CREATE OR REPLACE FUNCTION punchcard.find_unfinished_jobs(
    p_account_id uuid, p_status text, p_kind text, p_there bigint, p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_here bigint;
BEGIN
    ids := ARRAY(
        SELECT w.id FROM (
            SELECT j.id, j.kind, q.status
            FROM (SELECT j.id, j.kind FROM punchcard.jobs j
                  WHERE j.account_id = p_account_id AND j.id < p_before
                  ORDER BY j.id DESC LIMIT 10000) j,
                 LATERAL (SELECT CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL
                                      THEN 'queued' ELSE 'running' END AS status
                          FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
            ORDER BY j.id DESC LIMIT p_there) w
        WHERE w.status = p_status AND (p_kind IS NULL OR w.kind = p_kind)
        ORDER BY w.id DESC LIMIT p_limit);
    IF cardinality(ids) < p_limit THEN
        -- If all of them are among the newest 10,000 jobs, there is none further on.
        SELECT count(*) INTO found_here FROM (
            SELECT FROM (SELECT j.id FROM punchcard.jobs j WHERE j.account_id = p_account_id
                         ORDER BY j.id DESC LIMIT 10000) j,
                        LATERAL (SELECT FROM punchcard.queue q WHERE q.job_id = j.id LIMIT 1) q
            LIMIT p_there) f;
        IF found_here < p_there THEN
            SELECT j.id INTO next_before FROM punchcard.jobs j
            WHERE j.account_id = p_account_id AND j.id < p_before
            ORDER BY j.id DESC OFFSET 9999 LIMIT 1;
        END IF;
    END IF;
END $$;
