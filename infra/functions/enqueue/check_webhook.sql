-- Vets a webhook, {url, events}: events are those that end a job unless it says otherwise. Where it may point
-- to is vetted by whoever sends, address by address.
CREATE OR REPLACE FUNCTION punchcard.check_webhook(p_webhook jsonb) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    events jsonb := coalesce(nullif(p_webhook -> 'events', 'null'),
                             '["job.succeeded", "job.failed", "job.canceled"]');
BEGIN
    IF jsonb_typeof(p_webhook) <> 'object' OR p_webhook - ARRAY['url', 'events'] <> '{}'
        OR (p_webhook ->> 'url' ~ '^https?://' AND length(p_webhook ->> 'url') <= 2000) IS NOT TRUE
        OR jsonb_typeof(p_webhook -> 'url') <> 'string' OR jsonb_typeof(events) <> 'array'
        OR jsonb_array_length(events) = 0
        OR NOT events <@ '["job.running", "job.succeeded", "job.failed", "job.canceled"]'
    THEN
        RAISE EXCEPTION 'invalid_webhook' USING ERRCODE = 'PT422', DETAIL =
            'A webhook has a url (https, up to 2000 characters) and, as wished, events: job.running, '
            'job.succeeded, job.failed, job.canceled.';
    END IF;
    RETURN jsonb_build_object('url', p_webhook -> 'url', 'events', events);
END $$;
