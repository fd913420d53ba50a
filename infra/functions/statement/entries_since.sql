-- The numbered entries of a share that were made from p_since on, of each sort the first p_limit in the order
-- of time: kept and archived, those of free jobs and shifts too. `delta`s are what each did to the balances;
-- of one end what was captured and released is one entry. Of each month's archive the first p_rows that have
-- some; NULL: all. In a row the times are in no order.
CREATE OR REPLACE FUNCTION punchcard.entries_since(
    p_account_id uuid, p_share smallint, p_since timestamptz, p_limit bigint, p_rows bigint)
    RETURNS TABLE (entry bigint, kind text, available_delta bigint, held_delta bigint, available_after bigint,
                   held_after bigint, job_id uuid, idempotency_key text, reason text, created_at timestamptz,
                   at timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    first_id uuid := punchcard.first_id(p_since);
    kept_from uuid := (SELECT r.archived_before FROM punchcard.retention r);
BEGIN
    RETURN QUERY
    (SELECT m.entry, m.kind::text, m.amount, 0::bigint, m.available_after, m.held_after, m.job_id,
            m.idempotency_key, m.reason, m.created_at, m.created_at
     FROM punchcard.movements m
     WHERE m.account_id = p_account_id AND m.share = p_share AND m.created_at >= p_since
     ORDER BY m.entry LIMIT p_limit)
    UNION ALL
    (SELECT j.entry, 'hold', -j.price, j.price, j.available_after, j.held_after, j.id, NULL, NULL,
            j.created_at, punchcard.uuid_time(j.id)
     FROM punchcard.jobs j
     WHERE j.account_id = p_account_id AND j.share = p_share AND j.id >= first_id AND j.id >= kept_from
     ORDER BY j.id LIMIT p_limit)
    UNION ALL
    SELECT coalesce(o.entry, d.entry), 'end', j.price - o.captured, -j.price,
           coalesce(o.available_after, d.available_after), coalesce(o.held_after, d.held_after), o.job_id,
           NULL, NULL, o.finished_at, o.finished_at
    FROM (SELECT o.job_id, o.entry, o.captured, o.available_after, o.held_after, o.finished_at
          FROM punchcard.outcomes o
          WHERE o.account_id = p_account_id AND o.share = p_share AND o.finished_at >= p_since
            AND o.job_id >= kept_from
          ORDER BY o.finished_at, o.job_id LIMIT p_limit) o
    CROSS JOIN LATERAL (SELECT j.price FROM punchcard.jobs j
                        WHERE j.account_id = p_account_id AND j.id = o.job_id LIMIT 1) j
    LEFT JOIN LATERAL (SELECT d.entry, d.available_after, d.held_after FROM punchcard.deferred_entries d
                       WHERE d.job_id = o.job_id AND o.entry IS NULL LIMIT 1) d ON true
    WHERE coalesce(o.entry, d.entry) IS NOT NULL
    UNION ALL
    SELECT a.* FROM (
        SELECT x.entry, CASE WHEN x.captured IS NULL THEN 'hold' ELSE 'end' END,
               x.price - coalesce(x.captured, 2 * x.price),
               CASE WHEN x.captured IS NULL THEN x.price ELSE -x.price END, x.available_after, x.held_after,
               x.job_id, NULL::text, NULL::text, x.at,
               CASE WHEN x.captured IS NULL THEN punchcard.uuid_time(x.job_id) ELSE x.at END AS order_at
        FROM punchcard.archived_months m
        CROSS JOIN LATERAL (
            SELECT a.* FROM punchcard.archive_of(m.end_id, p_account_id) a
            WHERE a.last_at >= p_since AND p_share = ANY (a.shares)
            ORDER BY a.first_account, a.first_share, a.first_entry LIMIT p_rows) a
        CROSS JOIN LATERAL unnest(a.accounts, a.shares, a.entries, a.job_ids, a.prices, a.captured,
                                  a.available_after, a.held_after, a.at)
            AS x (account_id, share, entry, job_id, price, captured, available_after, held_after, at)
        WHERE m.end_id <= kept_from AND m.last_at >= p_since AND x.account_id = p_account_id
          AND x.share = p_share) a
    WHERE a.order_at >= p_since;
END $$;
