-- Up to p_limit jobs that have lapsed, longest first, but for those of the accounts p_busy; locks their rows.
CREATE OR REPLACE FUNCTION punchcard.lapsed(p_limit bigint, p_busy uuid[])
    RETURNS TABLE (job_id uuid, account_id uuid, lease_token bigint, verdict text, error text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT q.job_id, q.account_id, q.lease_token,
           CASE WHEN canceled THEN 'cancel' WHEN waiting THEN 'overdue' WHEN expired THEN 'fail'
                ELSE 'crash' END,
           CASE WHEN canceled THEN NULL
                WHEN waiting
                THEN json_build_object('code', 'not_called_back', 'message', 'nobody called back in time',
                                       'attempt', attempt)
                WHEN expired
                THEN json_build_object('code', 'expired', 'message', 'not finished within its life',
                                       'attempt', attempt)
                ELSE json_build_object('code', 'lease_expired', 'message',
                     'the worker did not report before its lease expired', 'attempt', attempt) END::text
    FROM (
        SELECT q.job_id, q.account_id, q.lease_token, q.attempt, q.expires_at <= now() AS expired,
               q.cancel_requested_at IS NOT NULL AS canceled, q.waiting_until IS NOT NULL AS waiting
        FROM punchcard.queue q
        WHERE coalesce(q.lease_expires_at, q.waiting_until, q.expires_at) <= now()
          AND q.account_id <> ALL (p_busy)
        ORDER BY coalesce(q.lease_expires_at, q.waiting_until, q.expires_at)
        LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED) q;
END $$;
