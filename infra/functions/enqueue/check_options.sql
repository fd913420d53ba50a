-- Vets what a job asks for beside its kind's policy: an object with, as wished, `retry`, `metadata`, `tags`,
-- `webhook`, `retry_of`. Answers NULL for what it does not ask for.
CREATE OR REPLACE FUNCTION punchcard.check_options(
    p_options jsonb, p_max_attempts integer,
    OUT max_attempts smallint, OUT retry jsonb, OUT metadata jsonb, OUT tags text[], OUT webhook jsonb,
    OUT retry_of uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    known text[] := ARRAY['max_attempts', 'backoff', 'backoff_seconds', 'backoff_max_seconds',
                          'backoff_delays', 'jitter'];
BEGIN
    IF pg_column_size(p_options) > 65536 OR jsonb_typeof(p_options) <> 'object'
        OR p_options - ARRAY['retry', 'metadata', 'tags', 'webhook', 'retry_of'] <> '{}'
    THEN
        RAISE EXCEPTION 'invalid_options' USING ERRCODE = 'PT422',
            DETAIL =
                'Options are an object of up to 64 KiB with retry, metadata, tags, webhook and retry_of.';
    END IF;
    retry := nullif(p_options -> 'retry', 'null');
    metadata := nullif(p_options -> 'metadata', 'null');
    IF coalesce(p_options -> 'retry_of', 'null') <> 'null' THEN
        retry_of := (p_options ->> 'retry_of')::uuid;
        -- What was within the bounds then is within those of now.
        IF (retry ->> 'max_attempts')::integer > p_max_attempts THEN
            retry := jsonb_set(retry, '{max_attempts}', to_jsonb(p_max_attempts));
        END IF;
    END IF;

    IF retry IS NOT NULL THEN
        IF jsonb_typeof(retry) <> 'object' OR retry - known <> '{}'
            OR (retry ? 'max_attempts' AND NOT punchcard.is_whole(retry -> 'max_attempts', 1, p_max_attempts))
            OR (retry ? 'backoff_seconds' AND NOT punchcard.is_whole(retry -> 'backoff_seconds', 1, 86400))
            OR (retry ? 'backoff_max_seconds'
                AND NOT punchcard.is_whole(retry -> 'backoff_max_seconds', 1, 86400))
            OR (retry ? 'backoff' AND retry ->> 'backoff' NOT IN ('exponential', 'linear', 'fixed'))
            OR (retry ? 'jitter' AND NOT CASE WHEN jsonb_typeof(retry -> 'jitter') = 'number'
                                              THEN (retry ->> 'jitter')::numeric BETWEEN 0 AND 1
                                              ELSE false END)
            OR (retry ? 'backoff_delays') <> (coalesce(retry ->> 'backoff', '') = 'fixed')
            OR (retry ? 'backoff_delays' AND NOT CASE WHEN jsonb_typeof(retry -> 'backoff_delays') = 'array'
                THEN jsonb_array_length(retry -> 'backoff_delays') BETWEEN 1 AND 25
                    AND NOT EXISTS (SELECT FROM jsonb_array_elements(retry -> 'backoff_delays') d (delay)
                                    WHERE NOT punchcard.is_whole(d.delay, 0, 86400)) ELSE false END)
        THEN
            RAISE EXCEPTION 'invalid_retry' USING ERRCODE = 'PT422', DETAIL = format(
                'A retry has, as wished, max_attempts (1 to %s for this kind), backoff (exponential, linear, '
                'or fixed with 1 to 25 backoff_delays), backoff_seconds and backoff_max_seconds (1 to 86400) '
                'and jitter (0 to 1).',
                p_max_attempts);
        END IF;
        max_attempts := retry -> 'max_attempts';
        retry := nullif(retry - 'max_attempts', '{}');
    END IF;

    IF metadata IS NOT NULL THEN
        IF jsonb_typeof(metadata) <> 'object'
            OR (SELECT count(*) > 16
                       OR NOT bool_and(m.key ~ '^[A-Za-z0-9_.-]{1,64}$' AND jsonb_typeof(m.value) = 'string'
                                       AND length(m.value #>> '{}') <= 512)
                FROM jsonb_each(CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{}' END) m)
        THEN
            RAISE EXCEPTION 'invalid_metadata' USING ERRCODE = 'PT422', DETAIL =
                'Metadata are up to 16 strings of up to 512 characters, by names of up to 64 of '
                'A-Z a-z 0-9 _ . -';
        END IF;
        metadata := nullif(metadata, '{}');
    END IF;

    IF coalesce(p_options -> 'tags', 'null') <> 'null' THEN
        IF jsonb_typeof(p_options -> 'tags') = 'array' THEN
            -- In the order of their bytes, as the API sorts them too.
            SELECT array_agg(DISTINCT (t.tag #>> '{}') COLLATE "C") INTO tags
            FROM jsonb_array_elements(p_options -> 'tags') t (tag);
        END IF;
        IF jsonb_typeof(p_options -> 'tags') <> 'array' OR cardinality(tags) > 10
            OR EXISTS (SELECT FROM unnest(tags) t WHERE (t ~ '^[A-Za-z0-9_.:/@+-]{1,64}$') IS NOT TRUE)
            OR EXISTS (SELECT FROM jsonb_array_elements(p_options -> 'tags') t (tag)
                       WHERE jsonb_typeof(t.tag) <> 'string')
        THEN
            RAISE EXCEPTION 'invalid_tags' USING ERRCODE = 'PT422', DETAIL =
                'Tags are up to 10 strings of up to 64 of A-Z a-z 0-9 _ . : / @ + -';
        END IF;
    END IF;

    IF coalesce(p_options -> 'webhook', 'null') <> 'null' THEN
        webhook := punchcard.check_webhook(p_options -> 'webhook');
    END IF;
END $$;
