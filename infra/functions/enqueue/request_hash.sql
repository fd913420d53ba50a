-- What a key was used for, as a hash; refuses what is no key. What jsonb cannot hold (a lone surrogate, more
-- digits than `numeric` has), or what looks like a number with an exponent within a string, makes an input
-- count as it is written.
CREATE OR REPLACE FUNCTION punchcard.request_hash(p_key text, p_what text, p_input json) RETURNS uuid
    LANGUAGE plpgsql AS $$
BEGIN
    -- Not by a bounded repetition, which costs more than the hash.
    IF length(p_key) NOT BETWEEN 1 AND 128 OR p_key ~ E'[^\\x20-\\x7e]' THEN
        RAISE EXCEPTION 'invalid_idempotency_key' USING ERRCODE = 'PT422',
            DETAIL = 'A key has 1 to 128 printable ASCII characters.';
    END IF;
    RETURN punchcard.key_digest(p_what || E'\n' || punchcard.canonical(p_input));
EXCEPTION WHEN data_exception THEN
    RETURN punchcard.key_digest(p_what || E'\n' || p_input::text);
END $$;
