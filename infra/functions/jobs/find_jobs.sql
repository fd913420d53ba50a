-- The ids of an account's jobs, newest first, before p_before: up to p_limit of those of some statuses (with
-- commas between them) and one kind, if these are given, bought within a time, that have all of p_labels.
-- Walks past 10,000 others at most (for each status), whatever the history. `next_before` is where the next
-- page begins, also if nothing was found so far; NULL when there is no more. Of an account that is erased,
-- none.
CREATE OR REPLACE FUNCTION punchcard.find_jobs(
    p_account_id uuid, p_status text, p_kind text, p_labels text[], p_before uuid, p_limit bigint,
    p_created_after timestamptz DEFAULT NULL, p_created_before timestamptz DEFAULT NULL,
    OUT ids uuid[], OUT next_before uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- Its searches inherit this. Planned once, since a plan over all months costs more than a page: which of
    -- them are read is found when it is run. By scalar sub-selects, each by its key, job by job.
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_sort = off SET jit = off AS $$
DECLARE
    before uuid := coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    first uuid := punchcard.first_id(p_created_after);
    there bigint;
    page record;
    word text;
    found uuid[] := '{}';
    horizon uuid;
BEGIN
    IF p_created_before IS NOT NULL THEN
        before := least(before, punchcard.first_id(p_created_before));
        p_before := before;
    END IF;
    IF position(',' IN p_status) > 0 THEN
        -- Each status has a walk of its own, and what is behind the one that ends first is of the next page.
        FOR word IN SELECT DISTINCT w FROM unnest(string_to_array(p_status, ',')) w LOOP
            page := punchcard.find_jobs(p_account_id, word, p_kind, p_labels, before, p_limit);
            found := found || page.ids;
            horizon := greatest(horizon, page.next_before);
        END LOOP;
        ids := ARRAY(SELECT f FROM unnest(found) f
                     WHERE (horizon IS NULL OR f >= horizon) AND (first IS NULL OR f >= first)
                     ORDER BY f DESC LIMIT p_limit);
        next_before := CASE WHEN cardinality(ids) = p_limit THEN ids[p_limit] ELSE horizon END;
        IF next_before <= first THEN
            next_before := NULL;
        END IF;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = p_account_id) THEN
        ids := '{}';
        RETURN;
    END IF;
    IF p_status IN ('queued', 'running') THEN
        -- The account counts them.
        SELECT coalesce(sum(a.unfinished_jobs), 0) INTO there FROM punchcard.accounts a
        WHERE a.id = p_account_id;
        IF there = 0 THEN
            ids := '{}';
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_labels) > 0 THEN
        page := punchcard.find_labeled_jobs(p_account_id, p_status, p_kind, p_labels, before, p_limit);
    ELSIF there IS NOT NULL THEN
        page := punchcard.find_unfinished_jobs(p_account_id, p_status, p_kind, there, before, p_limit);
    ELSIF p_status IN ('failed', 'canceled') THEN
        page := punchcard.find_unsuccessful_jobs(p_account_id, p_status, p_kind, before, p_limit);
    ELSIF p_status IS NULL AND p_kind IS NULL THEN
        page := punchcard.find_newest_jobs(p_account_id, p_before, p_limit);
    ELSE
        page := punchcard.find_matching_jobs(p_account_id, p_status, p_kind, before, p_limit);
    END IF;
    ids := page.ids;
    next_before := CASE WHEN cardinality(ids) = p_limit THEN ids[p_limit] ELSE page.next_before END;
    IF first IS NOT NULL THEN
        ids := ARRAY(SELECT f FROM unnest(ids) f WHERE f >= first ORDER BY f DESC);
        IF next_before <= first THEN
            next_before := NULL;
        END IF;
    END IF;
END $$;
