-- Holds credits for so many jobs: of the share that this backend uses, else of all shares dealt anew, else
-- with what is missing drawn from the team's own credits, if there is such a source. Within the account's
-- limits, unless these were taken in elsewhere. Answers the share, its balances, and the number there of the
-- last of these jobs: the caller writes their rows. Raises PT402 insufficient_credits, PT403 account_closed,
-- and as `pass_limits`.
CREATE OR REPLACE FUNCTION punchcard.hold_credits(
    p_account_id uuid, p_amount bigint, p_jobs integer, p_bytes bigint, p_limited boolean DEFAULT true,
    OUT share smallint, OUT available bigint, OUT held bigint, OUT entry bigint)
    LANGUAGE plpgsql AS $$
DECLARE
    total bigint;
    shares integer;
    limited boolean;
BEGIN
    -- Whether anybody is limited is asked along with it: for most, nobody is.
    SELECT f.spread, EXISTS (SELECT FROM punchcard.limits) INTO shares, limited
    FROM punchcard.accounts f WHERE f.id = p_account_id AND f.share = 0;
    IF p_limited AND limited IS NOT FALSE THEN
        PERFORM punchcard.pass_limits(p_account_id, p_jobs, p_bytes);
    END IF;
    IF shares IS NULL THEN
        IF p_amount = 0 THEN
            INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
        END IF;
        -- Its first grant may have been on its way then, and be here now: `pass_limits` waits for it, and so
        -- did this.
        SELECT f.spread INTO shares FROM punchcard.accounts f WHERE f.id = p_account_id AND f.share = 0;
        shares := coalesce(shares, 1);
    END IF;
    IF shares = 0 THEN
        PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    END IF;
    share := pg_backend_pid() % shares;
    IF shares = 1 THEN
        UPDATE punchcard.accounts a
        SET available = a.available - p_amount, held = a.held + p_amount,
            unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes,
            entries = a.entries + p_jobs
        WHERE a.id = p_account_id AND a.share = 0 AND a.available >= p_amount AND a.spread > 0
        RETURNING a.available, a.held, a.entries INTO available, held, entry;
        IF FOUND THEN
            RETURN;
        END IF;
    ELSE
        -- An UPDATE that waited for a row and then found too little on it keeps the row's lock, out of the
        -- order in which dealing takes them: rolling it back lets go of it.
        BEGIN
            UPDATE punchcard.accounts a
            SET available = a.available - p_amount, held = a.held + p_amount,
                unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes,
                entries = a.entries + p_jobs
            WHERE a.id = p_account_id AND a.share = hold_credits.share AND a.available >= p_amount
              AND a.spread > 0
            RETURNING a.available, a.held, a.entries INTO STRICT available, held, entry;
            RETURN;
        EXCEPTION WHEN no_data_found THEN
            NULL;
        END;
    END IF;
    -- It may have been closed while we waited.
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    -- A look without a lock first: whoever has no credits holds nobody up.
    SELECT b.available INTO total FROM punchcard.balances b WHERE b.account_id = p_account_id;
    IF total >= p_amount THEN
        total := punchcard.deal_credits(p_account_id, shares, share, p_amount, true);
    END IF;
    -- Also if others took it between that look and the lock: nobody is told that there is too little before
    -- the source is asked.
    IF coalesce(total, 0) < p_amount AND EXISTS (SELECT FROM punchcard.credit_source) THEN
        total := punchcard.draw_credits(p_account_id, p_amount);
        IF total >= p_amount THEN
            total := punchcard.deal_credits(p_account_id, shares, share, p_amount);
        END IF;
    END IF;
    IF total IS NULL OR total < p_amount THEN
        RAISE EXCEPTION 'insufficient_credits' USING ERRCODE = 'PT402',
            DETAIL = json_build_object('required', p_amount, 'available', coalesce(total, 0))::text;
    END IF;
    UPDATE punchcard.accounts a
    SET available = a.available - p_amount, held = a.held + p_amount,
        unfinished_jobs = a.unfinished_jobs + p_jobs, unfinished_bytes = a.unfinished_bytes + p_bytes,
        entries = a.entries + p_jobs
    WHERE a.id = p_account_id AND a.share = hold_credits.share AND a.spread > 0
    RETURNING a.available, a.held, a.entries INTO available, held, entry;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
        RAISE no_data_found;
    END IF;
END $$;
