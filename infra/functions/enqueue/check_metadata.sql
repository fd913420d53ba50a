-- Refuses metadata that could not be found again, or are too many or too long.
CREATE OR REPLACE FUNCTION punchcard.check_metadata(p_metadata jsonb) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(p_metadata) <> 'object'
        OR (SELECT count(*) > 16
                   OR NOT bool_and(m.key ~ '^[A-Za-z0-9_.-]{1,64}$' AND jsonb_typeof(m.value) = 'string'
                                   AND length(m.value #>> '{}') <= 512)
            FROM jsonb_each(CASE jsonb_typeof(p_metadata) WHEN 'object' THEN p_metadata ELSE '{}' END) m)
    THEN
        RAISE EXCEPTION 'invalid_metadata' USING ERRCODE = 'PT422', DETAIL =
            'Metadata are up to 16 strings of up to 512 characters, by names of up to 64 of '
            'A-Z a-z 0-9 _ . -';
    END IF;
END $$;
