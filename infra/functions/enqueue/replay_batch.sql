-- The batch that a key bought, as it is now, if the key was used for the same. Planned once; the months that
-- its ids are of are read alone, and by keys: among its ids are those of others. Raises as `replay_job` does.
CREATE OR REPLACE FUNCTION punchcard.replay_batch(p_bought punchcard.idempotency_keys, p_hash uuid)
    RETURNS TABLE (id uuid, kind text, status text, price bigint, replayed boolean,
                   wake_after double precision)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    PERFORM punchcard.refuse_closed(p_bought.account_id, p_wait => false);
    IF p_bought.request_hash <> p_hash THEN
        RAISE EXCEPTION 'idempotency_mismatch' USING ERRCODE = 'PT422',
            DETAIL = 'This key was used for another request.';
    END IF;
    RETURN QUERY
    SELECT n.id, n.kind, n.status, n.price, true, NULL::double precision
    FROM punchcard.jobs j, LATERAL (
        SELECT n.* FROM punchcard.jobs_between(p_bought.job_id, p_bought.last_job_id) n
        WHERE n.account_id = p_bought.account_id AND n.id = j.id LIMIT 1) n
    WHERE j.account_id = p_bought.account_id AND j.batch_id = p_bought.job_id
      AND j.id BETWEEN p_bought.job_id AND p_bought.last_job_id
    ORDER BY j.id;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_gone(p_bought.job_id, true);
    END IF;
END $$;
