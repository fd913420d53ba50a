-- Who may what: the one list, of this database's roles and schemas. `grant_access` grants it, and `punchcard
-- doctor` holds it against what is granted. An object of `columns` is granted by these alone.
CREATE OR REPLACE FUNCTION punchcard.access()
    RETURNS TABLE (role text, privilege text, type text, object text, columns text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH meant (role, privilege, type, object, columns) AS (
        SELECT 'punchcard_app', 'USAGE', 'SCHEMA', 'punchcard', NULL
        UNION ALL
        SELECT 'punchcard_app', 'SELECT', 'TABLE', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'accounts', 'balances', 'movements', 'deferred_entries', 'waiting_entries', 'ends', 'ledger',
            'entries', 'kinds', 'kind_terms', 'jobs', 'idempotency_keys', 'retries', 'labels', 'queue',
            'outcomes', 'attempts', 'jobs_now', 'runs', 'limits', 'webhooks', 'outbox', 'deliveries',
            'messages', 'service_tokens', 'credit_source', 'migrations', 'functions', 'hidden',
            'periods', 'upkeep', 'retention', 'archived_months', 'archive', 'archived_entries', 'carried',
            'kept_jobs', 'kept_outcomes', 'erasures', 'audit_i0', 'audit_rounds', 'audit_findings',
            'dated_grants', 'dated_accounts']) name
        UNION ALL
        SELECT 'punchcard_app', 'EXECUTE', 'FUNCTION', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'enqueue', 'enqueue_batch', 'validate_batch', 'find_jobs', 'find_failed',
            'find_redrivable', 'find_entries',
            'find_statement',
            'show_jobs', 'jobs_between', 'first_id', 'uuid_time', 'no_time', 'key_digest', 'keep_up',
            'cancel', 'retry', 'redrive', 'grant_credits', 'balance', 'return_credits', 'source_health',
            'claim', 'claim_singly', 'settle', 'check_in', 'rescue', 'call_back', 'claim_deliveries',
            'settle_deliveries', 'set_webhook', 'rotate_webhook_secret', 'job_now', 'refuse_gone',
            'erase_account', 'erase_payloads', 'audit_accounts', 'audit_rows', 'dated_left',
            'access']) name
        UNION ALL
        -- The team's own backend, through a function of its own in an exposed schema.
        SELECT 'service_role', 'USAGE', 'SCHEMA', 'punchcard', NULL
        UNION ALL
        SELECT 'service_role', 'EXECUTE', 'FUNCTION', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'enqueue', 'enqueue_batch', 'cancel', 'retry', 'grant_credits', 'increment_user_credits']) name
        UNION ALL
        -- Signed-in users: the two views, and of the tables behind them the columns that these read; and the
        -- function that finds what a view would look for in all that they have.
        SELECT 'authenticated', v.* FROM (VALUES
            ('USAGE', 'SCHEMA', 'punchcard_api', NULL),
            ('SELECT', 'TABLE', 'punchcard_api.jobs', NULL),
            ('SELECT', 'TABLE', 'punchcard_api.credits', NULL),
            ('EXECUTE', 'FUNCTION', 'punchcard_api.find_jobs', NULL),
            ('EXECUTE', 'FUNCTION', 'punchcard_api.open_account', NULL),
            ('SELECT', 'TABLE', 'punchcard.jobs',
             'id, account_id, kind, price, priority, max_attempts, input, scheduled_at, created_at, '
             'expires_at, retry_of, metadata, tags'),
            ('SELECT', 'TABLE', 'punchcard.queue',
             'job_id, account_id, lease_expires_at, waiting_until, attempt, error, run_at, started_at, '
             'cancel_requested_at, progress_percent, progress_message'),
            ('SELECT', 'TABLE', 'punchcard.outcomes',
     'job_id, account_id, status, captured, attempt, output, error, started_at, run_started_at, finished_at'),
            ('SELECT', 'TABLE', 'punchcard.deferred_entries', 'account_id, price, captured, entry'),
            ('SELECT', 'TABLE', 'punchcard.accounts', 'id, available, held')) v
        WHERE to_regnamespace('punchcard_api') IS NOT NULL
    )
    SELECT m.* FROM meant m WHERE EXISTS (SELECT FROM pg_roles r WHERE r.rolname = m.role)
$$;
