-- Makes p_amount available, drawn from the source as far as it is missing. Answers what there is in all;
-- moves nothing if that is less.
CREATE OR REPLACE FUNCTION punchcard.draw_credits(p_account_id uuid, p_amount bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint;
    there bigint;
BEGIN
    INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
    -- Accounts before the source, everywhere: two buyers do not deadlock.
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
    PERFORM punchcard.fold_entries(p_account_id, ARRAY(
        SELECT a.share FROM punchcard.accounts a
        WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE));
    SELECT sum(a.available) INTO total FROM punchcard.accounts a WHERE a.id = p_account_id;
    IF total >= p_amount THEN
        RETURN total;
    END IF;
    there := coalesce(punchcard.drawable(punchcard.source_balance(p_account_id, true)), 0);
    IF total + there >= p_amount THEN
        PERFORM punchcard.move_at_source(p_account_id, total - p_amount);
        PERFORM punchcard.move_credits('grant', p_account_id, p_amount - total,
                                       'drawn:' || punchcard.uuid_v7(), NULL, 'drawn from the credit source');
        RETURN p_amount;
    END IF;
    RETURN total + there;
END $$;
