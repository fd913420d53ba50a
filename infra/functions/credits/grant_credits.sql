-- Grants credits, once for each key; the first grant creates the account. With p_expires_at, what is left of
-- them then lapses (ADR 23).
CREATE OR REPLACE FUNCTION punchcard.grant_credits(
    p_account_id uuid, p_amount bigint, p_key text, p_reason text DEFAULT NULL,
    p_expires_at timestamptz DEFAULT NULL,
    OUT entry punchcard.movements, OUT replayed boolean)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM punchcard.move_credits('grant', p_account_id, p_amount, p_key, NULL, p_reason, p_expires_at)
$$;
