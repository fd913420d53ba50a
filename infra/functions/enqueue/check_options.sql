-- Vets what a job asks for beside its kind's policy: an object with, as wished, `retry`, `metadata`, `tags`,
-- `webhook`, `retry_of`. Answers NULL for what it does not ask for.
CREATE OR REPLACE FUNCTION punchcard.check_options(
    p_options jsonb, p_max_attempts integer,
    OUT max_attempts smallint, OUT retry jsonb, OUT metadata jsonb, OUT tags text[], OUT webhook jsonb,
    OUT retry_of uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
        PERFORM punchcard.check_retry_policy(retry, p_max_attempts);
        max_attempts := retry -> 'max_attempts';
        retry := nullif(retry - 'max_attempts', '{}');
    END IF;
    IF metadata IS NOT NULL THEN
        PERFORM punchcard.check_metadata(metadata);
        metadata := nullif(metadata, '{}');
    END IF;
    IF coalesce(p_options -> 'tags', 'null') <> 'null' THEN
        tags := punchcard.check_tags(p_options -> 'tags');
    END IF;
    IF coalesce(p_options -> 'webhook', 'null') <> 'null' THEN
        webhook := punchcard.check_webhook(p_options -> 'webhook');
    END IF;
END $$;
