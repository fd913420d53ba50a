-- Deals what an account has available evenly over the first p_spread of its shares; p_least of it, at least,
-- to share p_share. Answers what there is in all; moves nothing if that is less. With p_free, what it has on
-- shares that nobody else holds, if that is enough: else all shares are locked, in their order.
CREATE OR REPLACE FUNCTION punchcard.deal_credits(
    p_account_id uuid, p_spread integer, p_share integer, p_least bigint, p_free boolean DEFAULT false)
    RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint;
    dealt_to smallint[];  -- shares, in their order
    users integer;        -- how many of them are dealt to
BEGIN
    -- A transaction that bought before holds a share already: if it waited for another, it might for one
    -- whose holder waits for it. What it locks and finds too little on, it lets go of (by rolling back)
    -- before it waits.
    IF p_free THEN
        BEGIN
            dealt_to := ARRAY(SELECT a.share FROM punchcard.accounts a
                              WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE SKIP LOCKED);
            PERFORM punchcard.fold_entries(p_account_id, dealt_to);
            SELECT sum(a.available) INTO STRICT total FROM punchcard.accounts a
            WHERE a.id = p_account_id AND a.share = ANY (dealt_to)
            HAVING sum(a.available) >= p_least AND p_share = ANY (dealt_to);
        EXCEPTION WHEN no_data_found THEN
            dealt_to := NULL;
        END;
    END IF;
    IF dealt_to IS NULL THEN
        -- Share 0 in a statement of its own: who spreads the account holds it, and has made the others by
        -- then.
        PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
        dealt_to := ARRAY(SELECT a.share FROM punchcard.accounts a
                          WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE);
        PERFORM punchcard.fold_entries(p_account_id, dealt_to);
        SELECT sum(a.available) INTO total FROM punchcard.accounts a
        WHERE a.id = p_account_id AND a.share = ANY (dealt_to);
        IF total IS NULL OR total < p_least THEN
            RETURN coalesce(total, 0);
        END IF;
    END IF;
    SELECT count(*) INTO users FROM unnest(dealt_to) s (share) WHERE s.share < p_spread;
    WITH target AS MATERIALIZED (
        SELECT a.share, a.available AS before,
               CASE WHEN a.share >= p_spread OR users = 0 THEN 0 ELSE (total - p_least) / users END
               + CASE WHEN a.share <> p_share THEN 0
                      WHEN users = 0 THEN total ELSE p_least + (total - p_least) % users END AS available
        FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = ANY (dealt_to)
    ), dealt AS (
        UPDATE punchcard.accounts a SET available = t.available, entries = a.entries + 1
        FROM target t
        WHERE a.id = p_account_id AND a.share = t.share AND t.available <> t.before
        RETURNING a.share, a.entries, a.available, a.held, t.available - t.before AS shifted
    )
    INSERT INTO punchcard.movements (account_id, share, entry, kind, amount, available_after, held_after)
    SELECT p_account_id, d.share, d.entries, 'shift', d.shifted, d.available, d.held FROM dealt d;
    RETURN total;
END $$;
