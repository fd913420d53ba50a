-- Where a share stood at a time: the number of its first entry from then on, and the balances before that;
-- without one, the number that it will have, and the balances of now. Numbers are given out in the order of
-- time, but for what waited for its account: the least of the first 20,000 of each sort, and of all that are
-- archived, counts. Once there is one, no lesser number can come.
CREATE OR REPLACE FUNCTION punchcard.share_at(
    p_account_id uuid, p_share smallint, p_at timestamptz,
    OUT entry bigint, OUT available bigint, OUT held bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT e.entry, e.available_after - e.available_delta, e.held_after - e.held_delta
    INTO entry, available, held
    FROM punchcard.entries_since(p_account_id, p_share, p_at, 20000, NULL) e
    -- The id of an old system's job may tell any time.
    WHERE e.at >= p_at AND (e.kind <> 'hold' OR e.at <= e.created_at + interval '1 minute')
    ORDER BY e.entry LIMIT 1;
    IF NOT FOUND THEN
        SELECT a.entries + 1, a.available, a.held INTO entry, available, held FROM punchcard.accounts a
        WHERE a.id = p_account_id AND a.share = p_share;
    END IF;
END $$;
