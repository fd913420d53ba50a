-- The role of the deployed functions. What it may do is said by `access` (infra/functions/access).

-- The role that the deployed functions log in as: `punchcard roles` gives it its password.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'punchcard_app') THEN
        CREATE ROLE punchcard_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of this server was faster
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role punchcard_app is missing, and % may not create it: %', current_user,
            'run `punchcard roles` as an administrator first' USING ERRCODE = 'insufficient_privilege';
END $$;

-- What its statements need, whatever the database says; `punchcard roles` sets the same, and time-outs. Where
-- the role is not ours to change, or another database of this server does so just now, `punchcard doctor`
-- tells what is missing.
DO $$
DECLARE
    setting record;
BEGIN
    FOR setting IN
        SELECT * FROM (VALUES ('default_transaction_isolation', '''read committed'''), ('row_security', 'on'),
                              ('search_path', 'pg_catalog, pg_temp'), ('jit', 'off'),
                              ('synchronous_commit', 'on')) w (name, value)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
                          WHERE s.setrole = 'punchcard_app'::regrole AND s.setdatabase = 0
                            AND c LIKE w.name || '=%')
    LOOP
        EXECUTE format('ALTER ROLE punchcard_app SET %I = %s', setting.name, setting.value);
    END LOOP;
EXCEPTION WHEN insufficient_privilege OR internal_error THEN
    NULL;
END $$;
