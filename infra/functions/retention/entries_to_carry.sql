-- For `carry_entries`: the entries of rows of a month's archive, or the movements of accounts until its end,
-- each with what it did to the two balances, when, and the line that is hashed. What gave back for a job
-- stays as long as its job's entries: it says that no more is given back.
CREATE OR REPLACE FUNCTION punchcard.entries_to_carry(
    p_rows tid[], p_accounts uuid[], p_month uuid, p_end_at timestamptz)
    RETURNS TABLE (account_id uuid, share smallint, entry bigint, available_delta bigint, held_delta bigint,
                   at timestamptz, line text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.account_id, e.share, e.entry, e.available_delta, e.held_delta, e.at,
           concat_ws(',', e.entry, e.kind, e.available_delta, e.held_delta, e.available_after, e.held_after,
                     coalesce(e.job_id::text, e.key, ''))
    FROM (SELECT x.account_id, x.share, x.entry, CASE WHEN x.captured IS NULL THEN 'hold' ELSE 'end' END,
                 x.price - coalesce(x.captured, 2 * x.price),
                 CASE WHEN x.captured IS NULL THEN x.price ELSE -x.price END, x.available_after,
                 x.held_after, x.job_id, NULL, x.at
          FROM punchcard.archive a,
               unnest(a.accounts, a.shares, a.entries, a.job_ids, a.prices, a.captured, a.available_after,
                      a.held_after, a.at)
                   AS x (account_id, share, entry, job_id, price, captured, available_after, held_after, at)
          WHERE a.ctid = ANY (p_rows)
          UNION ALL
          SELECT m.account_id, m.share, m.entry, m.kind::text, m.amount, 0, m.available_after, m.held_after,
                 m.job_id, m.idempotency_key, m.created_at
          FROM punchcard.movements m
          WHERE m.account_id = ANY (p_accounts) AND m.created_at < p_end_at
            AND (m.job_id IS NULL OR m.job_id < p_month)) e (
              account_id, share, entry, kind, available_delta, held_delta, available_after, held_after,
              job_id, key, at)
$$;
