-- json: the JSON that a text is; NULL if it is none.
CREATE FUNCTION pg_temp.punchcard_json(p_text text) RETURNS json
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN p_text::json;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END $$
