-- For `apply_retention`: once the oldest month in the archive is past the retention of money, carries its
-- entries, some rows of the archive a step, and then what else moved until its end, some hundred accounts a
-- step; false if there is nothing to carry. What is carried is added to, and goes by the same transaction: a
-- reader finds an entry here or there. It never changes, so that nobody has to be waited for.
CREATE OR REPLACE FUNCTION punchcard.carry_entries() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    kept punchcard.retention;
    month uuid;
    end_at timestamptz;
    rows tid[];
    accounts uuid[];
BEGIN
    SELECT * INTO kept FROM punchcard.retention r FOR NO KEY UPDATE;
    SELECT min(m.end_id::text)::uuid INTO month FROM punchcard.archived_months m
    WHERE m.end_id > kept.carried_before AND m.gone_at IS NOT NULL
      -- What came in since an account was last dealt with is still to be counted.
      AND NOT EXISTS (SELECT FROM punchcard.dated_accounts d
                      WHERE d.dealt_at < punchcard.uuid_time(m.end_id))
      AND m.end_id <= punchcard.first_id(now() - kept.money_days * interval '1 day');
    IF month IS NULL THEN
        RETURN false;
    END IF;
    end_at := punchcard.uuid_time(month);
    UPDATE punchcard.retention r SET carrying_before = month WHERE r.carrying_before < month;
    SELECT array_agg(a.ctid) INTO rows
    FROM (SELECT a.ctid FROM punchcard.archive a WHERE a.end_id = month
          ORDER BY a.first_account, a.first_share, a.first_entry LIMIT 40) a;
    IF rows IS NULL THEN
        SELECT array_agg(a.id) INTO accounts
        FROM (SELECT DISTINCT a.id FROM punchcard.accounts a
              WHERE kept.carry_after IS NULL OR a.id > kept.carry_after
              ORDER BY a.id LIMIT 200) a;
        IF accounts IS NULL THEN
            UPDATE punchcard.retention r
            SET carried_before = month, carry_after = NULL
            WHERE r.only_one;
            DELETE FROM punchcard.archived_months m WHERE m.end_id < month;
            RETURN true;
        END IF;
    END IF;
    INSERT INTO punchcard.carried AS c (account_id, share, numbers, entries, available, held, until, last_at,
                                        sha256)
    SELECT e.account_id, e.share, range_agg(int8range(e.entry, e.entry, '[]')), count(*),
           sum(e.available_delta), sum(e.held_delta), end_at, max(e.at),
           encode(sha256(convert_to(concat_ws(E'\n', (
               SELECT o.sha256 FROM punchcard.carried o
               WHERE o.account_id = e.account_id AND o.share = e.share),
               string_agg(e.line, E'\n' ORDER BY e.entry)), 'UTF8')), 'hex')
    FROM punchcard.entries_to_carry(rows, accounts, month, end_at) e
    GROUP BY e.account_id, e.share
    ON CONFLICT (account_id, share) DO UPDATE
    SET numbers = c.numbers + excluded.numbers, entries = c.entries + excluded.entries,
        available = c.available + excluded.available, held = c.held + excluded.held,
        until = excluded.until, last_at = greatest(c.last_at, excluded.last_at), sha256 = excluded.sha256;
    DELETE FROM punchcard.archive a WHERE a.ctid = ANY (rows);
    DELETE FROM punchcard.movements m
    WHERE m.account_id = ANY (accounts) AND m.created_at < end_at AND (m.job_id IS NULL OR m.job_id < month);
    DELETE FROM punchcard.dated_grants g
    WHERE g.account_id = ANY (accounts) AND g.left_over = 0 AND g.expires_at < end_at;
    UPDATE punchcard.retention r SET carry_after = coalesce(accounts[cardinality(accounts)], r.carry_after)
    WHERE r.only_one;
    RETURN true;
END $$;
