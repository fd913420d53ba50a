-- The ADR's function, made safe: a key is required, there is a ledger entry, an overdraft is refused, and a
-- job that it names is the account's own.
-- Answers the credits available afterwards.
CREATE OR REPLACE FUNCTION punchcard.increment_user_credits(
    p_user_id uuid, p_amount bigint, p_key text, p_job_id uuid DEFAULT NULL, p_reason text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT FROM punchcard.move_credits('adjust', p_user_id, p_amount, p_key, p_job_id, p_reason);
    SELECT b.available FROM punchcard.balances b WHERE b.account_id = p_user_id;
$$;
