-- For `erase_payloads`: cancels those of an account's jobs that are not finished, as `cancel` does: what is
-- queued, or waits outside, at once; what runs is asked to stop. What cannot be canceled any more is
-- left, and so is what somebody else is at: answers the first of these.
CREATE OR REPLACE FUNCTION punchcard.cancel_all(p_account_id uuid, p_ids uuid[]) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[];
    tokens bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = ANY (p_ids)) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM punchcard.accounts a WHERE a.id = p_account_id ORDER BY a.share FOR NO KEY UPDATE;
    WITH mine AS MATERIALIZED (
        SELECT q.job_id FROM punchcard.queue q
        WHERE q.job_id = ANY (p_ids)
          AND ((SELECT t.on_cancel FROM punchcard.kind_terms t WHERE t.id = q.terms_id) <> 'refuse'
               OR (coalesce(q.lease_expires_at, q.waiting_until) IS NULL AND NOT q.has_run))
        ORDER BY q.job_id FOR NO KEY UPDATE SKIP LOCKED
    ), asked AS (
        UPDATE punchcard.queue q SET cancel_requested_at = coalesce(q.cancel_requested_at, now())
        WHERE q.job_id = ANY (ARRAY(SELECT m.job_id FROM mine m))
        RETURNING q.job_id, q.lease_token, q.lease_expires_at
    )
    SELECT array_agg(a.job_id ORDER BY a.job_id), array_agg(a.lease_token ORDER BY a.job_id)
    INTO ids, tokens
    FROM asked a WHERE a.lease_expires_at IS NULL;
    IF ids IS NOT NULL THEN
        PERFORM punchcard.settle(ids, tokens, array_fill('cancel'::text, ARRAY[cardinality(ids)]),
                                 array_fill(0::double precision, ARRAY[cardinality(ids)]),
                                 array_fill(NULL::text, ARRAY[cardinality(ids)]),
                                 array_fill(NULL::text, ARRAY[cardinality(ids)]), p_rescue => true);
    END IF;
    RETURN (
        SELECT q.job_id FROM punchcard.queue q
        WHERE q.job_id = ANY (p_ids) AND q.cancel_requested_at IS NULL
          AND ((SELECT t.on_cancel FROM punchcard.kind_terms t WHERE t.id = q.terms_id) <> 'refuse'
               OR (coalesce(q.lease_expires_at, q.waiting_until) IS NULL AND NOT q.has_run))
        ORDER BY q.job_id LIMIT 1);
END $$;
