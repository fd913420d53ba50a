-- Sets where an account is told of its jobs, or, with NULL, that it is not; a disabled webhook works again.
-- Raises PT403 account_closed.
CREATE OR REPLACE FUNCTION punchcard.set_webhook(p_account_id uuid, p_url text, p_events text[] DEFAULT NULL)
    RETURNS punchcard.webhooks
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    vetted jsonb;
    webhook punchcard.webhooks;
BEGIN
    IF p_url IS NOT NULL THEN
        vetted := punchcard.check_webhook(jsonb_build_object('url', p_url, 'events', to_jsonb(p_events)));
    END IF;
    PERFORM punchcard.refuse_closed(p_account_id);
    INSERT INTO punchcard.webhooks (account_id, url, events)
    VALUES (p_account_id, p_url, coalesce(ARRAY(SELECT jsonb_array_elements_text(vetted -> 'events')), '{}'))
    ON CONFLICT (account_id) DO UPDATE SET url = excluded.url, events = excluded.events, disabled_at = NULL
    RETURNING * INTO webhook;
    -- Who closes an account that has nothing but a webhook is waited for by that row.
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    RETURN webhook;
END $$;
