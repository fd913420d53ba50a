-- For upkeep: looks at the next part of the accounts, and then of what names jobs, and notes what is wrong;
-- true if there is another part. Once all is through, what was not seen again is dropped, and the round
-- begins anew with the next call. `upkeep` says how many findings there are.
CREATE OR REPLACE FUNCTION punchcard.audit_next(
    p_entries bigint DEFAULT 40000, p_most bigint DEFAULT 1000000) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    round punchcard.audit_rounds;
    next record;
    part record;
    number bigint;
BEGIN
    SELECT * INTO round FROM punchcard.audit_rounds r FOR NO KEY UPDATE;
    IF round.after_id IS NULL AND NOT round.of_rows THEN
        round.began_at := clock_timestamp();
        round.entries := 0;
        round.left_out := 0;
    END IF;
    -- An account that no tick gets through is left to whoever audits by hand.
    SELECT n.id, (SELECT sum(a.entries) FROM punchcard.accounts a WHERE a.id = n.id) AS entries INTO next
    FROM punchcard.accounts n WHERE round.after_id IS NULL OR n.id > round.after_id ORDER BY n.id LIMIT 1;
    IF NOT round.of_rows AND next.entries > p_most THEN
        UPDATE punchcard.audit_rounds r
        SET after_id = next.id, began_at = round.began_at, entries = round.entries,
            left_out = round.left_out + 1
        WHERE r.only_one;
        RETURN true;
    END IF;
    FOR part IN
        SELECT a.invariant, a.subject, a.finding, a.next_after, a.entries
        FROM punchcard.audit_accounts(round.after_id, p_entries) a WHERE NOT round.of_rows
        UNION ALL
        SELECT r.invariant, r.subject, r.finding, r.next_after, NULL
        FROM punchcard.audit_rows(round.after_id, p_entries) r WHERE round.of_rows
    LOOP
        INSERT INTO punchcard.audit_findings AS f (invariant, subject, finding, found_at, seen_at)
        SELECT part.invariant, part.subject, part.finding, clock_timestamp(), clock_timestamp()
        WHERE part.finding IS NOT NULL
          AND ((SELECT count(*) FROM punchcard.audit_findings) < 1000
               OR EXISTS (SELECT FROM punchcard.audit_findings f
                          WHERE (f.invariant, f.subject, f.finding)
                                = (part.invariant, part.subject, part.finding)))
        ON CONFLICT (invariant, subject, finding) DO UPDATE SET seen_at = excluded.seen_at;
    END LOOP;
    IF NOT round.of_rows THEN
        round.entries := round.entries + coalesce(part.entries, 0);
    END IF;
    round.after_id := part.next_after;
    IF round.after_id IS NULL THEN
        IF round.of_rows THEN
            round.done_at := clock_timestamp();
            DELETE FROM punchcard.audit_findings f WHERE f.seen_at < round.began_at;
        END IF;
        round.of_rows := NOT round.of_rows;
    END IF;
    UPDATE punchcard.audit_rounds r
    SET of_rows = round.of_rows, after_id = round.after_id, began_at = round.began_at,
        entries = round.entries, left_out = round.left_out, done_at = round.done_at
    WHERE r.only_one;
    SELECT count(*) INTO number FROM punchcard.audit_findings;
    UPDATE punchcard.upkeep u
    SET error = CASE WHEN number > 0 THEN format(
            '%s finding%s: stop granting and refunding by hand, and run `punchcard credits audit`',
            number, CASE WHEN number > 1 THEN 's' END) END
    WHERE u.task = 'audit' AND (u.error IS NOT NULL OR number > 0);
    RETURN round.after_id IS NOT NULL OR round.of_rows;
END $$;
