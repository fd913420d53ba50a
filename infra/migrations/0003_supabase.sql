-- What a Supabase project gets, where `auth.uid()` and its roles are: views and a function for signed-in
-- users through PostgREST, and messages through Realtime if the operator wants them. Elsewhere nothing of it
-- is made but the function that does nothing.

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
    -- with the rights of who asks, who has them on these columns alone and cannot name the tables. A
    -- page in the order of ids reads no more than itself; a count joins nothing.
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

    -- One's own jobs of a status, a kind, or with all of some labels (a tag, or `key=value` of the metadata),
    -- newest first, older than p_before: `data`, as the view shows them, and `next_before`, the p_before of
    -- the next page, or null. A page may be short, even empty, although there are more: it walks past 10,000
    -- others at most, which the view would not. As the owner, who may read labels; whose jobs they are is
    -- auth.uid()'s to say alone, and who is nobody has none.
    CREATE FUNCTION punchcard_api.find_jobs(
        p_status text DEFAULT NULL, p_kind text DEFAULT NULL, p_labels text[] DEFAULT '{}',
        p_before uuid DEFAULT NULL, p_limit integer DEFAULT 20) RETURNS json
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
    DECLARE
        account uuid := auth.uid();
        walk record;
        page record;
    BEGIN
        -- Each label is another walk.
        IF p_limit NOT BETWEEN 1 AND 100 OR cardinality(p_labels) > 10 THEN
            RAISE EXCEPTION 'invalid_query' USING ERRCODE = 'PT422',
                DETAIL = 'The limit is from 1 to 100, of up to 10 labels.';
        END IF;
        SELECT * INTO walk
        FROM punchcard.find_jobs(account, p_status, p_kind, p_labels, p_before, coalesce(p_limit, 20));
        SELECT json_agg(j ORDER BY j.id DESC) AS jobs, count(*) AS shown, min(j.id::text)::uuid AS last
        INTO page
        FROM (SELECT n.id, n.kind, n.status, n.price, n.priority, n.attempt, n.max_attempts, n.input,
                     n.output, n.error, n.run_at, n.created_at, n.started_at, n.finished_at, n.expires_at,
                     n.captured, n.cancel_requested_at, n.progress_percent, n.progress_message, n.retry_of,
                     n.metadata, n.tags, n.waiting_until
              FROM punchcard.show_jobs(account, walk.ids, 2500000) n) j;
        RETURN json_build_object(
            'data', coalesce(page.jobs, '[]'),
            'next_before', CASE WHEN page.shown < cardinality(walk.ids) THEN page.last
                                ELSE walk.next_before END);
    END $f$;

    CREATE VIEW punchcard_api.credits WITH (security_invoker = on) AS
        SELECT b.account_id, b.available + w.released AS available, b.held - w.price AS held
        FROM (SELECT a.id AS account_id, sum(a.available)::bigint AS available, sum(a.held)::bigint AS held
              FROM punchcard.accounts a GROUP BY a.id) b,
             LATERAL (SELECT coalesce(sum(d.price - d.captured), 0)::bigint AS released,
                             coalesce(sum(d.price), 0)::bigint AS price
                      FROM punchcard.deferred_entries d
                      WHERE d.account_id = b.account_id AND d.entry IS NULL) w;

    -- Whose jobs who is signed in may read: nobody's, once their account is erased. Their credits stay.
    CREATE FUNCTION punchcard_api.open_account() RETURNS uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
        SELECT u.id FROM auth.uid() AS u (id)
        WHERE NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = u.id)
    $f$;

    CREATE POLICY own_rows ON punchcard.jobs FOR SELECT TO authenticated
        USING (account_id = (SELECT punchcard_api.open_account()));
    CREATE POLICY own_rows ON punchcard.queue FOR SELECT TO authenticated
        USING (account_id = (SELECT punchcard_api.open_account()));
    CREATE POLICY own_rows ON punchcard.outcomes FOR SELECT TO authenticated
        USING (account_id = (SELECT punchcard_api.open_account()));
    CREATE POLICY own_rows ON punchcard.deferred_entries FOR SELECT TO authenticated
        USING (account_id = (SELECT auth.uid()));
    CREATE POLICY own_rows ON punchcard.accounts FOR SELECT TO authenticated USING (id = (SELECT auth.uid()));
END $$;
