-- A page of an account's statement of the month that begins at p_month: `shares` says of each share which
-- numbers it has, from `first` to before `behind`, with the balances before and after; then come up to
-- p_limit entries of p_share from the number p_from on (NULL: of the first share, from its first), gapless.
-- p_near is a time near the first of them, where they are looked for. `is_final`: no entry of that month can
-- come any more. Without an entry there is one row, of these two alone. Raises PT404 not_found (no such
-- account) · PT410 gone (some of its entries are carried).
CREATE OR REPLACE FUNCTION punchcard.find_statement(
    p_account_id uuid, p_month timestamptz, p_share smallint, p_from bigint, p_near timestamptz,
    p_limit bigint)
    RETURNS TABLE (shares json, is_final boolean, share smallint, entry bigint, kind text,
                   available_delta bigint, held_delta bigint, available_after bigint, held_after bigint,
                   job_id uuid, idempotency_key text, reason text, created_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    month_end timestamptz := (p_month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    carried timestamptz;
    of_share smallint := coalesce(p_share, 0);
    from_entry bigint := p_from;
    behind bigint;
    walk record;
BEGIN
    -- The ends of carried jobs are carried, too, though they came later: of a month that has lost some
    -- nothing is proved any more.
    SELECT (date_trunc('month', max(c.last_at) AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
    INTO carried FROM punchcard.carried c WHERE c.account_id = p_account_id;
    IF p_month < carried THEN
        RAISE EXCEPTION 'gone' USING ERRCODE = 'PT410', DETAIL = format(
            'Entries of before %s are carried in one.', to_char(carried AT TIME ZONE 'UTC', 'YYYY-MM-DD'));
    END IF;
    SELECT json_agg(json_build_object(
               'share', s.share, 'first', f.entry, 'behind', b.entry,
               'opening', json_build_object('available', f.available, 'held', f.held),
               'closing', json_build_object('available', b.available, 'held', b.held)) ORDER BY s.share),
           max(f.entry) FILTER (WHERE s.share = of_share), max(b.entry) FILTER (WHERE s.share = of_share)
    INTO shares, from_entry, behind
    FROM (SELECT a.share FROM punchcard.accounts a WHERE a.id = p_account_id) s
    CROSS JOIN LATERAL punchcard.share_at(p_account_id, s.share, p_month) f
    CROSS JOIN LATERAL punchcard.share_at(p_account_id, s.share, month_end) b;
    -- What was deferred may have a number of this month, and an earlier time.
    IF carried IS NOT NULL AND EXISTS (
        SELECT FROM json_to_recordset(shares) AS s (share smallint, first bigint, behind bigint)
        JOIN punchcard.carried c ON c.account_id = p_account_id AND c.share = s.share
        WHERE c.numbers && int8range(s.first, s.behind))
    THEN
        RAISE EXCEPTION 'gone' USING ERRCODE = 'PT410',
            DETAIL = 'Some entries of this month are carried in one with those of before.';
    END IF;
    IF shares IS NULL THEN
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is no such account.';
    END IF;
    from_entry := coalesce(p_from, from_entry);
    behind := least(behind, from_entry + p_limit);
    is_final := now() > month_end + interval '1 hour'
        AND NOT EXISTS (SELECT FROM punchcard.deferred_entries d
                        WHERE d.account_id = p_account_id AND d.entry IS NULL);
    -- What waited for its account, or was deferred, has an earlier time than its number says: mostly by
    -- moments.
    FOR walk IN
        SELECT coalesce(p_near, p_month) - interval '1 minute' AS since, 2 * p_limit AS most,
               4 + p_limit / 50 AS rows, false AS is_last
        UNION ALL SELECT coalesce(p_near, p_month) - interval '1 hour', 30 * p_limit,
               4 + p_limit / 3, false
        UNION ALL SELECT timestamptz 'epoch', 9223372036854775807, NULL, true
    LOOP
        CONTINUE WHEN NOT walk.is_last AND behind - from_entry > (
            SELECT count(*)
            FROM punchcard.entries_since(p_account_id, of_share, walk.since, walk.most, walk.rows) e
            WHERE e.entry >= from_entry AND e.entry < behind);
        RETURN QUERY
        SELECT shares, is_final, of_share, e.entry, e.kind, e.available_delta, e.held_delta,
               e.available_after, e.held_after, e.job_id, e.idempotency_key, e.reason, e.created_at
        FROM (SELECT 1) one
        LEFT JOIN punchcard.entries_since(p_account_id, of_share, walk.since, walk.most, walk.rows) e
            ON e.entry >= from_entry AND e.entry < behind
        ORDER BY e.entry;
        RETURN;
    END LOOP;
END $$;
