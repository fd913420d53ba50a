-- A job's tags, each once, in the order of their bytes; refuses what is no list of tags.
CREATE OR REPLACE FUNCTION punchcard.check_tags(p_tags jsonb, OUT tags text[])
    LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(p_tags) = 'array' THEN
        -- In the order of their bytes, as the API sorts them too.
        SELECT array_agg(DISTINCT (t.tag #>> '{}') COLLATE "C") INTO tags
        FROM jsonb_array_elements(p_tags) t (tag);
    END IF;
    IF jsonb_typeof(p_tags) <> 'array' OR cardinality(tags) > 10
        OR EXISTS (SELECT FROM unnest(tags) t WHERE (t ~ '^[A-Za-z0-9_.:/@+-]{1,64}$') IS NOT TRUE)
        OR EXISTS (SELECT FROM jsonb_array_elements(p_tags) t (tag)
                   WHERE jsonb_typeof(t.tag) <> 'string')
    THEN
        RAISE EXCEPTION 'invalid_tags' USING ERRCODE = 'PT422', DETAIL =
            'Tags are up to 10 strings of up to 64 of A-Z a-z 0-9 _ . : / @ + -';
    END IF;
END $$;
