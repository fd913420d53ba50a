-- Of `find_jobs`, any: those that were bought last. `recent` is how far back it looked first.
CREATE OR REPLACE FUNCTION punchcard.find_newest_jobs(
    p_account_id uuid, p_before uuid, p_limit bigint,
    OUT ids uuid[], OUT next_before uuid, OUT recent uuid)
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- As a rule the last month or two have a page of them, and the others need not be opened.
    recent := punchcard.first_id(
        coalesce(least(now(), punchcard.uuid_time(p_before)), now()) - interval '240 hours');
    p_before := coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    ids := ARRAY(
        SELECT j.id FROM punchcard.jobs j
        WHERE j.account_id = p_account_id AND j.id < p_before
          AND j.id >= recent
        ORDER BY j.id DESC LIMIT p_limit);
    IF cardinality(ids) < p_limit THEN
        ids := ARRAY(
            SELECT j.id FROM punchcard.jobs j WHERE j.account_id = p_account_id AND j.id < p_before
            ORDER BY j.id DESC LIMIT p_limit);
    END IF;
END $$;
