-- What a Supabase project gets, where `auth.uid()` and its roles are: views for signed-in users through
-- PostgREST, and messages through Realtime if the operator wants them. Elsewhere nothing of it is made but
-- the function that does nothing.

DO $$
BEGIN
    IF to_regprocedure('auth.uid()') IS NULL
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'authenticated')
    THEN
        RETURN;
    END IF;

    -- Add `punchcard_api` to the Data API's exposed schemas; never `punchcard`.
    CREATE SCHEMA punchcard_api;

    -- One's own jobs as they are now. Whose they are is the policies' to say, not the view's: it reads
    -- with the rights of who asks, who has them on these columns alone and cannot name the tables.
    CREATE VIEW punchcard_api.jobs WITH (security_invoker = on) AS
        SELECT j.id, j.kind,
               coalesce(o.status::text,
                        CASE WHEN coalesce(q.lease_expires_at, q.waiting_until) IS NULL THEN 'queued'
                             ELSE 'running' END) AS status,
               j.price, j.priority, coalesce(o.attempt, q.attempt) AS attempt, j.max_attempts, j.input,
               o.output, coalesce(o.error, q.error) AS error,
               coalesce(q.run_at, j.scheduled_at, j.created_at) AS run_at, j.created_at,
               coalesce(o.started_at, o.run_started_at, q.started_at) AS started_at, o.finished_at,
               j.expires_at, o.captured, q.cancel_requested_at, q.progress_percent, q.progress_message,
               j.retry_of, j.metadata, j.tags, q.waiting_until
        FROM punchcard.jobs j
        LEFT JOIN punchcard.queue q ON q.job_id = j.id
        LEFT JOIN punchcard.outcomes o ON o.job_id = j.id;

    CREATE VIEW punchcard_api.credits WITH (security_invoker = on) AS
        SELECT b.account_id, b.available + w.released AS available, b.held - w.price AS held
        FROM (SELECT a.id AS account_id, sum(a.available)::bigint AS available, sum(a.held)::bigint AS held
              FROM punchcard.accounts a GROUP BY a.id) b,
             LATERAL (SELECT coalesce(sum(d.price - d.captured), 0)::bigint AS released,
                             coalesce(sum(d.price), 0)::bigint AS price
                      FROM punchcard.deferred_entries d
                      WHERE d.account_id = b.account_id AND d.entry IS NULL) w;

    CREATE POLICY own_rows ON punchcard.jobs FOR SELECT TO authenticated
        USING (account_id = (SELECT auth.uid()));
    CREATE POLICY own_rows ON punchcard.queue FOR SELECT TO authenticated
        USING (account_id = (SELECT auth.uid()));
    CREATE POLICY own_rows ON punchcard.outcomes FOR SELECT TO authenticated
        USING (account_id = (SELECT auth.uid()));
    CREATE POLICY own_rows ON punchcard.deferred_entries FOR SELECT TO authenticated
        USING (account_id = (SELECT auth.uid()));
    CREATE POLICY own_rows ON punchcard.accounts FOR SELECT TO authenticated USING (id = (SELECT auth.uid()));
END $$;
