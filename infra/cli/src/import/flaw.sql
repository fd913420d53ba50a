-- flaw: why JSON cannot be kept, by the rule that holds for whatever is bought; NULL if it can.
CREATE FUNCTION pg_temp.punchcard_flaw(p_what text, p_json json) RETURNS text
    LANGUAGE plpgsql AS $$
BEGIN
    IF p_json IS NULL
        OR (octet_length(p_json::text) <= 65536 AND position(E'\\u0000' IN p_json::text) = 0)
    THEN
        RETURN NULL;
    END IF;
    BEGIN
        PERFORM punchcard.check_input(p_json);
        RETURN NULL;
    EXCEPTION WHEN SQLSTATE 'PT422' THEN
        RETURN format(CASE SQLERRM WHEN 'input_too_large' THEN 'its %s has more than 65,536 bytes'
                                   ELSE E'its %s contains \\u0000' END, p_what);
    END;
END $$
