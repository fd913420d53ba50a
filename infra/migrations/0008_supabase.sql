-- What a Supabase project gets, where `auth.uid()` and its roles are: views for signed-in users through PostgREST, and
-- messages through Realtime if the operator wants them. Elsewhere nothing of it is made but the function that does nothing.

DO $$
BEGIN
    IF to_regprocedure('auth.uid()') IS NULL
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'authenticated')
    THEN
        RETURN;
    END IF;

    -- Add `punchcard_api` to the Data API's exposed schemas; never `punchcard`.
    CREATE SCHEMA punchcard_api;

    -- One's own jobs as they are now. Whose they are is the policies' to say (0009_access), not the view's: it reads
    -- with the rights of who asks, who has them on these columns alone and cannot name the tables.
    CREATE VIEW punchcard_api.jobs WITH (security_invoker = on, security_barrier = on) AS
        SELECT j.id, j.kind,
               coalesce(o.status, CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued' ELSE 'running' END)
                   AS status,
               j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input, o.output,
               coalesce(o.error, q.error) AS error, coalesce(q.run_at, j.scheduled_at) AS run_at, j.created_at,
               coalesce(o.started_at, q.started_at) AS started_at, o.finished_at, j.expires_at, o.captured,
               q.cancel_requested_at, q.progress_percent, q.progress_message, j.retry_of, j.metadata, j.tags,
               q.waiting_until
        FROM punchcard.jobs j
        LEFT JOIN punchcard.queue q ON q.job_id = j.id
        LEFT JOIN punchcard.outcomes o ON o.job_id = j.id;

    CREATE VIEW punchcard_api.credits WITH (security_invoker = on, security_barrier = on) AS
        SELECT a.id AS account_id, sum(a.available)::bigint AS available, sum(a.held)::bigint AS held
        FROM punchcard.accounts a GROUP BY a.id;
END $$;

-- Tells Realtime of a job that has ended, on the private channel `punchcard:<account>`. A message is a hint: a failure to
-- send it never holds up what it tells of.
CREATE FUNCTION punchcard.broadcast_outcome() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM realtime.send(jsonb_build_object('id', NEW.job_id, 'status', NEW.status, 'finished_at', NEW.finished_at),
                          'job.' || NEW.status, 'punchcard:' || NEW.account_id, true);
    RETURN NULL;
EXCEPTION WHEN OTHERS OR assert_failure THEN
    RAISE LOG 'punchcard: realtime.send: % %', SQLSTATE, SQLERRM;
    RETURN NULL;
END $$;

-- Turns these messages on or off, and lets signed-in users receive those of their own channel.
CREATE FUNCTION punchcard.set_realtime(p_on boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DROP TRIGGER IF EXISTS outcomes_are_broadcast ON punchcard.outcomes;
    IF to_regclass('realtime.messages') IS NOT NULL THEN
        DROP POLICY IF EXISTS punchcard_own_channel ON realtime.messages;
    END IF;
    IF NOT p_on THEN
        RETURN;
    END IF;
    IF to_regprocedure('realtime.send(jsonb,text,text,boolean)') IS NULL THEN
        RAISE EXCEPTION 'no_realtime' USING ERRCODE = 'PT422', DETAIL = 'This database has no realtime.send.';
    END IF;
    CREATE TRIGGER outcomes_are_broadcast AFTER INSERT ON punchcard.outcomes
        FOR EACH ROW EXECUTE FUNCTION punchcard.broadcast_outcome();
    CREATE POLICY punchcard_own_channel ON realtime.messages FOR SELECT TO authenticated
        USING ((SELECT realtime.topic()) = 'punchcard:' || (SELECT auth.uid())::text);
END $$;

SELECT punchcard.revoke_defaults();
