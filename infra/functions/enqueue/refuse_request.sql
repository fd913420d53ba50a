-- Says why `enqueue` refuses a request: it lacks what it needs, or its job would come before all others, or
-- wait for too long.
CREATE OR REPLACE FUNCTION punchcard.refuse_request(
    p_account_id uuid, p_kind text, p_input json, p_priority integer) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF p_account_id IS NULL OR p_kind IS NULL OR p_input IS NULL THEN
        RAISE EXCEPTION 'invalid_request' USING ERRCODE = 'PT422',
            DETAIL = 'An account, a kind and an input are required.';
    ELSIF p_priority IS NULL OR p_priority NOT BETWEEN -10 AND 10 THEN
        RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422', DETAIL = 'A priority is from -10 to 10.';
    END IF;
    RAISE EXCEPTION 'invalid_run_at' USING ERRCODE = 'PT422', DETAIL = 'A job waits for 30 days at most.';
END $$;
