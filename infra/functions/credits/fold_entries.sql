-- Enters what waits of an account into the balances of these shares, in the order in which its jobs were
-- bought, and numbers it. For whoever holds these shares' rows, by a statement before this: so that nobody
-- else folds meanwhile, and this sees what was folded before. What is entered is what is numbered here, not
-- what waited when it was looked for: nothing counts twice.
CREATE OR REPLACE FUNCTION punchcard.fold_entries(p_account_id uuid, p_shares smallint[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM punchcard.deferred_entries d
                   WHERE d.account_id = p_account_id AND d.entry IS NULL)
    THEN
        RETURN;
    END IF;
    WITH waiting AS MATERIALIZED (
        SELECT d.job_id, a.entries + row_number() OVER so_far AS entry,
               a.available + sum(d.price - d.captured) OVER so_far AS available,
               a.held - sum(d.price) OVER so_far AS held
        FROM punchcard.deferred_entries d
        JOIN punchcard.accounts a ON a.id = d.account_id AND a.share = d.share
        WHERE d.account_id = p_account_id AND d.share = ANY (p_shares) AND d.entry IS NULL
        WINDOW so_far AS (PARTITION BY d.share ORDER BY d.job_id)
    ), entered AS (
        UPDATE punchcard.deferred_entries d
        SET entry = w.entry, available_after = w.available, held_after = w.held
        FROM waiting w WHERE d.job_id = ANY (ARRAY[w.job_id]) AND d.entry IS NULL
        RETURNING d.share, d.price, d.captured, d.bytes
    )
    UPDATE punchcard.accounts a
    SET available = a.available + e.back, held = a.held - e.price, entries = a.entries + e.jobs,
        unfinished_jobs = a.unfinished_jobs - e.jobs, unfinished_bytes = a.unfinished_bytes - e.bytes
    FROM (SELECT e.share, sum(e.price - e.captured)::bigint AS back, sum(e.price)::bigint AS price,
                 count(*)::integer AS jobs, sum(e.bytes)::bigint AS bytes
          FROM entered e GROUP BY e.share) e
    WHERE a.id = p_account_id AND a.share = e.share;
END $$;
