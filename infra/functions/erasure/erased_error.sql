-- What is left of an error of an account that is erased: that there was one, of which attempt, and whether
-- the input was to blame, which says what it cost.
CREATE OR REPLACE FUNCTION punchcard.erased_error(p_error json) RETURNS json
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_error IS NOT NULL THEN
        json_build_object('code', CASE p_error ->> 'code' WHEN 'invalid_input' THEN 'invalid_input'
                                                          ELSE 'erased' END,
                          'message', 'The account was erased.',
                          'attempt', CASE json_typeof(p_error -> 'attempt')
                                     WHEN 'number' THEN p_error -> 'attempt' END) END
$$;
