-- Refuses what is no movement from outside: without an account, an amount or a key, of too much, or a charge
-- that names a job.
CREATE OR REPLACE FUNCTION punchcard.check_movement(
    p_kind punchcard.entry_kind, p_account_id uuid, p_amount bigint, p_key text, p_job_id uuid, p_reason text)
    RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF p_account_id IS NULL OR p_amount IS NULL OR p_amount = 0 OR abs(p_amount::numeric) > 1e15
        OR (p_kind = 'grant' AND p_amount < 0)
    THEN
        RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
            DETAIL = 'An amount is a whole number up to 1000000000000000, and not 0; a grant''s is above it.';
    END IF;
    IF p_key IS NULL OR p_key !~ E'^[\\x20-\\x7e]{1,128}$' THEN
        RAISE EXCEPTION 'idempotency_key_required' USING ERRCODE = 'PT422',
            DETAIL = 'A key of 1 to 128 printable ASCII characters names this movement.';
    END IF;
    IF length(p_reason) > 500 THEN
        RAISE EXCEPTION 'reason_too_long' USING ERRCODE = 'PT422',
            DETAIL = 'A reason has at most 500 characters.';
    END IF;
    IF p_job_id IS NOT NULL THEN
        -- A job is charged by its hold alone, and once.
        IF p_amount < 0 THEN
            RAISE EXCEPTION 'invalid_amount' USING ERRCODE = 'PT422',
                DETAIL = 'What names a job gives back for it: its amount is above 0. A charge names none.';
        END IF;
    END IF;
END $$;
