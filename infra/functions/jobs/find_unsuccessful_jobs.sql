-- Of `find_jobs`, the failed or the canceled ones, perhaps of one kind: few of a history, by an index of them
-- alone.
CREATE OR REPLACE FUNCTION punchcard.find_unsuccessful_jobs(
    p_account_id uuid, p_status text, p_kind text, p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    ids := ARRAY(
        SELECT w.job_id
        FROM (SELECT u.job_id FROM punchcard.unsuccessful_jobs u
              WHERE u.status = p_status AND u.account_id = p_account_id AND u.job_id < p_before
              ORDER BY u.job_id DESC LIMIT 10000) w
        WHERE p_kind IS NULL
           OR (SELECT j.kind FROM punchcard.jobs j
               WHERE j.account_id = p_account_id AND j.id = w.job_id) = p_kind
        ORDER BY w.job_id DESC LIMIT p_limit);
    IF cardinality(ids) < p_limit THEN
        SELECT u.job_id INTO next_before FROM punchcard.unsuccessful_jobs u
        WHERE u.status = p_status AND u.account_id = p_account_id AND u.job_id < p_before
        ORDER BY u.job_id DESC OFFSET 9999 LIMIT 1;
    END IF;
END $$;
