-- Gives an account's webhooks a new secret. The last one signs, too, for a day. Raises PT403 account_closed.
CREATE OR REPLACE FUNCTION punchcard.rotate_webhook_secret(p_account_id uuid) RETURNS punchcard.webhooks
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    webhook punchcard.webhooks;
BEGIN
    PERFORM punchcard.refuse_closed(p_account_id);
    INSERT INTO punchcard.webhooks (account_id, secret_version, rotated_at) VALUES (p_account_id, 2, now())
    ON CONFLICT (account_id) DO UPDATE SET secret_version = webhooks.secret_version + 1, rotated_at = now()
    RETURNING * INTO webhook;
    PERFORM punchcard.refuse_closed(p_account_id, p_wait => false);
    RETURN webhook;
END $$;
