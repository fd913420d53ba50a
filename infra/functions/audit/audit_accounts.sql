-- What is wrong with the next accounts behind p_after (NULL: from the first on): as many as have p_entries
-- entries, and one at least. `next_after` is behind which to go on; NULL: there is none. Without a finding
-- there is one row, which says that, and how many entries were looked at, alone.
CREATE OR REPLACE FUNCTION punchcard.audit_accounts(p_after uuid, p_entries bigint DEFAULT 40000)
    RETURNS TABLE (invariant text, subject uuid, finding text, next_after uuid, entries bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET random_page_cost = 1 SET jit = off
    SET work_mem = '64MB' AS $$
DECLARE
    last_id uuid;
BEGIN
    -- Beyond the last account there may be rows of none.
    SELECT w.id, w.so_far INTO last_id, entries
    FROM (SELECT a.id, sum(a.entries) OVER (ORDER BY a.id, a.share) AS so_far, a.share
          FROM punchcard.accounts a WHERE p_after IS NULL OR a.id > p_after
          ORDER BY a.id, a.share LIMIT 2000) w
    WHERE w.so_far - p_entries <= 0 OR NOT EXISTS (
              SELECT FROM punchcard.accounts b WHERE b.id < w.id AND (p_after IS NULL OR b.id > p_after))
    ORDER BY w.id DESC, w.share DESC LIMIT 1;
    SELECT min(a.id::text)::uuid INTO next_after FROM punchcard.accounts a WHERE a.id > last_id;
    next_after := CASE WHEN next_after IS NOT NULL THEN last_id END;
    last_id := CASE WHEN next_after IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE last_id END;
    RETURN QUERY
    SELECT a.invariant, a.subject, a.finding, audit_accounts.next_after, audit_accounts.entries
    FROM (SELECT 1) one LEFT JOIN punchcard.audit_between(p_after, last_id) a ON true;
END $$;
