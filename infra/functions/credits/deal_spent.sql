-- Takes what an account has spent since it was last dealt with from its grants with a date, from what lapses
-- first (ADR 23), and answers what it holds for unfinished jobs: by one statement, so that nothing is spent
-- between the look and the note of it. For whoever holds the account's share 0: no credits come in meanwhile.
CREATE OR REPLACE FUNCTION punchcard.deal_spent(p_account_id uuid) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    held bigint;
BEGIN
    WITH has AS MATERIALIZED (
        SELECT b.available + b.held AS total, b.held, a.entries
        FROM punchcard.balances b
        JOIN punchcard.accounts a ON a.id = b.account_id AND a.share = 0
        WHERE b.account_id = p_account_id
    ), dealt AS (
        UPDATE punchcard.dated_grants g SET left_over = l.left_over
        FROM punchcard.dated_left(p_account_id) l
        WHERE g.account_id = p_account_id AND g.entry = l.entry AND g.left_over <> l.left_over
    ), noted AS (
        INSERT INTO punchcard.dated_accounts AS d (account_id, total, entry, dealt_at)
        SELECT p_account_id, h.total, h.entries, now() FROM has h
        ON CONFLICT (account_id) DO UPDATE
        SET total = excluded.total, entry = excluded.entry, dealt_at = excluded.dealt_at,
            error = NULL
    )
    SELECT h.held INTO held FROM has h;
    RETURN held;
END $$;
