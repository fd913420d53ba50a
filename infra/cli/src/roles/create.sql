-- create: the two roles, without a password yet; time-outs of their own, in force behind every pooler.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['punchcard_migrator', 'punchcard_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = role) THEN
            EXECUTE format('CREATE ROLE %I', role);
        END IF;
    END LOOP;
    -- To connect is everybody's right until somebody has taken it away.
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO punchcard_migrator, punchcard_app', current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO punchcard_migrator', current_database());
    IF to_regnamespace('auth') IS NOT NULL THEN
        BEGIN
            GRANT USAGE ON SCHEMA auth TO punchcard_migrator;  -- policies name auth.uid()
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'not ours to grant: on Supabase, migrate as postgres';
        END;
    END IF;
END $$;
-- A function's longest wait is shorter than its own deadline; nothing it does leaves a transaction open.
ALTER ROLE punchcard_app SET statement_timeout = '15s';
ALTER ROLE punchcard_app SET lock_timeout = '10s';
ALTER ROLE punchcard_app SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE punchcard_app SET search_path = pg_catalog, pg_temp;
-- Whatever the database says: who waited for a row must see what became of it, and row security lets both
-- pass.
ALTER ROLE punchcard_app SET default_transaction_isolation = 'read committed';
ALTER ROLE punchcard_app SET row_security = on;
-- What was answered 202 is on the disk, and outlives a crash of the server.
ALTER ROLE punchcard_app SET synchronous_commit = on;
-- Its statements are short: none is worth waiting for a compiler.
ALTER ROLE punchcard_app SET jit = off;
ALTER ROLE punchcard_migrator SET default_transaction_isolation = 'read committed';
ALTER ROLE punchcard_migrator SET row_security = on;
ALTER ROLE punchcard_migrator SET synchronous_commit = on;
-- The operator's commands run as the owner: whoever may create in another schema of the path could give a
-- function of PostgreSQL's a better fit.
ALTER ROLE punchcard_migrator SET search_path = pg_catalog, pg_temp;
-- A migration may take its time, but not in a queue for a lock with all traffic behind it.
ALTER ROLE punchcard_migrator SET statement_timeout = '10min';
ALTER ROLE punchcard_migrator SET lock_timeout = '5s';
ALTER ROLE punchcard_migrator SET idle_in_transaction_session_timeout = '1min';
-- Those above bound every statement already; another, of the database's, would end what they let pass.
DO $$
BEGIN
    IF current_setting('transaction_timeout', true) IS NOT NULL THEN  -- PostgreSQL 17 or newer
        ALTER ROLE punchcard_app SET transaction_timeout = 0;
        ALTER ROLE punchcard_migrator SET transaction_timeout = 0;
    END IF;
END $$;
