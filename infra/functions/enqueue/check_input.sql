-- Refuses what no worker could read, or should.
CREATE OR REPLACE FUNCTION punchcard.check_input(p_input json) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(p_input::text) > 65536 THEN
        RAISE EXCEPTION 'input_too_large' USING ERRCODE = 'PT422',
            DETAIL = 'An input has at most 65536 bytes.';
    END IF;
    -- `json` lets a NUL escape pass that no other JSON reader downstream would: the cast refuses it.
    IF position(E'\\u0000' IN p_input::text) > 0 THEN
        PERFORM p_input::jsonb;
    END IF;
EXCEPTION WHEN untranslatable_character THEN
    RAISE EXCEPTION 'nul_character' USING ERRCODE = 'PT422', DETAIL = E'An input cannot contain \\u0000.';
END $$;
