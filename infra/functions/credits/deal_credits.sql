-- Deals what an account has available evenly over the first p_spread of its shares; p_least of it, at least, to share p_share.
-- Answers what there is in all; moves nothing if that is less. With p_free, what it has on shares that nobody else holds, if
-- that is enough: else all shares are locked, in their order.
CREATE OR REPLACE FUNCTION punchcard.deal_credits(
    p_account_id uuid, p_spread integer, p_share integer, p_least bigint, p_free boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint;
    dealt_to smallint[];  -- shares, in their order
    users integer;        -- how many of them are dealt to
BEGIN
    -- A transaction that bought before holds a share already: if it waited for another, it might for one whose holder waits
    -- for it. What it locks and finds too little on, it lets go of (by rolling back) before it waits.
    IF p_free THEN
        BEGIN
            dealt_to := ARRAY(SELECT a.share FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share
                              FOR NO KEY UPDATE SKIP LOCKED);
            SELECT sum(a.available) INTO STRICT total FROM punchcard.accounts a
            WHERE a.id = p_account_id AND a.share = ANY (dealt_to)
            HAVING sum(a.available) >= p_least AND p_share = ANY (dealt_to);
        EXCEPTION WHEN no_data_found THEN
            dealt_to := NULL;
        END;
    END IF;
    IF dealt_to IS NULL THEN
        PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE;
        SELECT sum(a.available), array_agg(a.share ORDER BY a.share) INTO total, dealt_to
        FROM punchcard.accounts a WHERE a.id = p_account_id;
        IF total IS NULL OR total < p_least THEN
            RETURN coalesce(total, 0);
        END IF;
    END IF;
    SELECT count(*) INTO users FROM unnest(dealt_to) s (share) WHERE s.share < p_spread;
    WITH dealt AS (
        UPDATE punchcard.accounts a
        SET available = CASE WHEN a.share >= p_spread OR users = 0 THEN 0 ELSE (total - p_least) / users END
                      + CASE WHEN a.share <> p_share THEN 0
                             WHEN users = 0 THEN total ELSE p_least + (total - p_least) % users END
        FROM punchcard.accounts before
        WHERE a.id = p_account_id AND a.share = ANY (dealt_to) AND before.id = a.id AND before.share = a.share
        RETURNING a.share, a.available, a.held, a.available - before.available AS shifted
    )
    INSERT INTO punchcard.ledger (account_id, kind, amount, share, available_after, held_after)
    SELECT p_account_id, 'shift', d.shifted, d.share, d.available, d.held FROM dealt d WHERE d.shifted <> 0;
    RETURN total;
END $$;
