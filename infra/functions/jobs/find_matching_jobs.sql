-- Of `find_jobs`, those of one kind, or that succeeded: by a look at each.
CREATE OR REPLACE FUNCTION punchcard.find_matching_jobs(
    p_account_id uuid, p_status text, p_kind text, p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    ids := ARRAY(
        SELECT w.id
        FROM (SELECT j.id, j.kind FROM punchcard.jobs j
              WHERE j.account_id = p_account_id AND j.id < p_before
              ORDER BY j.id DESC LIMIT 10000) w
        WHERE (p_kind IS NULL OR w.kind = p_kind)
          AND (p_status IS NULL
               OR (SELECT o.status::text FROM punchcard.outcomes o WHERE o.job_id = w.id) = p_status)
        ORDER BY w.id DESC LIMIT p_limit);
    IF cardinality(ids) < p_limit THEN
        SELECT j.id INTO next_before FROM punchcard.jobs j
        WHERE j.account_id = p_account_id AND j.id < p_before
        ORDER BY j.id DESC OFFSET 9999 LIMIT 1;
    END IF;
END $$;
