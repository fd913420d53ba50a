-- Who may what. Every write goes through a function; the deployed functions' role may call those and read.

-- Service tokens: the team's own backend and payment system. Only the SHA-256 is kept; two are valid at a time
-- (the two slots), so that one can be rotated without a gap.
CREATE TABLE punchcard.service_tokens (
    name        text NOT NULL CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    slot        smallint NOT NULL CHECK (slot IN (1, 2)),
    scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['enqueue', 'grant', 'operate']),
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, slot)
);

-- The role that the deployed functions log in as: `punchcard roles` gives it its password.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'punchcard_app') THEN
        CREATE ROLE punchcard_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of this server was faster
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role punchcard_app is missing, and % may not create it: run `punchcard roles` as an administrator first',
            current_user USING ERRCODE = 'insufficient_privilege';
END $$;

-- What its statements need, whatever the database says; `punchcard roles` sets the same, and time-outs. Where the role is
-- not ours to change, or another database of this server does so just now, `punchcard doctor` tells what is missing.
DO $$
DECLARE
    setting record;
BEGIN
    FOR setting IN
        SELECT * FROM (VALUES ('default_transaction_isolation', '''read committed'''), ('row_security', 'on'),
                              ('search_path', 'pg_catalog, pg_temp'), ('jit', 'off'),
                              ('synchronous_commit', 'on')) w (name, value)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
                          WHERE s.setrole = 'punchcard_app'::regrole AND s.setdatabase = 0 AND c LIKE w.name || '=%')
    LOOP
        EXECUTE format('ALTER ROLE punchcard_app SET %I = %s', setting.name, setting.value);
    END LOOP;
EXCEPTION WHEN insufficient_privilege OR internal_error THEN
    NULL;
END $$;

-- Row security binds the owner too (FORCE): it and the functions' role pass by name, everybody else sees no row. Run again
-- where somebody else owns the tables now: after a restore, or REASSIGN OWNED. What fits is left alone, since each change
-- takes its table's lock.
CREATE FUNCTION punchcard.set_policies() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    wanted record;
BEGIN
    FOR t IN
        SELECT c.oid, c.relname, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS secured
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r'
    LOOP
        IF NOT t.secured THEN
            EXECUTE format('ALTER TABLE punchcard.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t.relname);
        END IF;
        FOR wanted IN
            SELECT w.*, p.oid IS NOT NULL AS there
            FROM (VALUES ('owner_does_all', 'ALL', t.relowner, 'WITH CHECK (true)'),
                         ('app_reads', 'SELECT', 'punchcard_app'::regrole::oid, '')) w (name, command, role, more)
            LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = t.oid AND p.polname = w.name
            WHERE p.polroles IS DISTINCT FROM ARRAY[w.role] OR pg_get_expr(p.polqual, p.polrelid) <> 'true'
        LOOP
            IF wanted.there THEN
                EXECUTE format('DROP POLICY %I ON punchcard.%I', wanted.name, t.relname);
            END IF;
            EXECUTE format('CREATE POLICY %I ON punchcard.%I FOR %s TO %s USING (true) %s', wanted.name, t.relname,
                           wanted.command, wanted.role::regrole, wanted.more);
        END LOOP;
    END LOOP;
END $$;

DO $$
BEGIN
    IF to_regnamespace('punchcard_api') IS NOT NULL THEN
        CREATE POLICY own_rows ON punchcard.jobs FOR SELECT TO authenticated USING (account_id = (SELECT auth.uid()));
        CREATE POLICY own_rows ON punchcard.queue FOR SELECT TO authenticated USING (account_id = (SELECT auth.uid()));
        CREATE POLICY own_rows ON punchcard.outcomes FOR SELECT TO authenticated USING (account_id = (SELECT auth.uid()));
        CREATE POLICY own_rows ON punchcard.accounts FOR SELECT TO authenticated USING (id = (SELECT auth.uid()));
    END IF;
END $$;

-- Who may what: the one list, of this database's roles and schemas. `grant_access` grants it, and `punchcard
-- doctor` holds it against what is granted. An object of `columns` is granted by these alone.
CREATE FUNCTION punchcard.access()
    RETURNS TABLE (role text, privilege text, type text, object text, columns text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH meant (role, privilege, type, object, columns) AS (
        SELECT 'punchcard_app', 'USAGE', 'SCHEMA', 'punchcard', NULL
        UNION ALL
        SELECT 'punchcard_app', 'SELECT', 'TABLE', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'accounts', 'balances', 'ledger', 'entries', 'kinds', 'jobs', 'labels', 'queue', 'outcomes',
            'attempts', 'jobs_now', 'runs', 'caps', 'webhooks', 'deliveries', 'service_tokens',
            'credit_source', 'migrations', 'hidden']) name
        UNION ALL
        SELECT 'punchcard_app', 'EXECUTE', 'FUNCTION', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'enqueue', 'enqueue_batch', 'find_jobs', 'cancel', 'retry', 'redrive', 'grant_credits', 'balance',
            'return_credits', 'source_health', 'claim', 'claim_singly', 'settle', 'check_in', 'rescue', 'call_back', 'claim_deliveries',
            'settle_deliveries', 'set_webhook', 'rotate_webhook_secret', 'job_now', 'access']) name
        UNION ALL
        -- The team's own backend, through a function of its own in an exposed schema.
        SELECT 'service_role', 'USAGE', 'SCHEMA', 'punchcard', NULL
        UNION ALL
        SELECT 'service_role', 'EXECUTE', 'FUNCTION', 'punchcard.' || name, NULL FROM unnest(ARRAY[
            'enqueue', 'enqueue_batch', 'cancel', 'retry', 'grant_credits', 'increment_user_credits']) name
        UNION ALL
        -- Signed-in users: the two views, and of the tables behind them the columns that these read.
        SELECT 'authenticated', v.* FROM (VALUES
            ('USAGE', 'SCHEMA', 'punchcard_api', NULL),
            ('SELECT', 'TABLE', 'punchcard_api.jobs', NULL),
            ('SELECT', 'TABLE', 'punchcard_api.credits', NULL),
            ('SELECT', 'TABLE', 'punchcard.jobs',
             'id, account_id, kind, price, priority, max_attempts, input, scheduled_at, created_at, '
             'expires_at, retry_of, metadata, tags'),
            ('SELECT', 'TABLE', 'punchcard.queue',
             'job_id, account_id, lease_expires_at, waiting_until, attempt, error, run_at, started_at, '
             'cancel_requested_at, progress_percent, progress_message'),
            ('SELECT', 'TABLE', 'punchcard.outcomes',
             'job_id, account_id, status, captured, attempt, output, error, started_at, finished_at'),
            ('SELECT', 'TABLE', 'punchcard.accounts', 'id, available, held')) v
        WHERE to_regnamespace('punchcard_api') IS NOT NULL
    )
    SELECT m.* FROM meant m WHERE EXISTS (SELECT FROM pg_roles r WHERE r.rolname = m.role)
$$;

-- Every grant there is, and the policies of owner and functions' role. Run it again, as the owner, after something was
-- granted by hand or a restore left something out; `punchcard migrate` does where it must.
CREATE FUNCTION punchcard.grant_access() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant record;
BEGIN
    PERFORM punchcard.set_policies();
    PERFORM punchcard.revoke_defaults();
    FOR meant IN SELECT * FROM punchcard.access() LOOP
        EXECUTE format('GRANT %s%s ON %s %s TO %I', meant.privilege, ' (' || meant.columns || ')',
                       meant.type, meant.object, meant.role);
    END LOOP;
END $$;

SELECT punchcard.grant_access();
