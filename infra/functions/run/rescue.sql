-- Takes back up to p_limit jobs that have lapsed. Past its life a job fails, and so does one that nobody
-- called back for in time; a job whose lease expired has crashed, and is queued again at once (the lease was
-- delay enough); one that was to be canceled is. None keeps the others waiting: one that the database refuses
-- stays as it is, and is answered with a NULL as its status; p_busy are accounts that such jobs are not to be
-- asked for of again. Where each has to be tried alone, it ends after some seconds, and leaves the others to
-- the next call. At its end, when it holds these accounts for a moment alone, it enters what was deferred.
CREATE OR REPLACE FUNCTION punchcard.rescue(p_limit bigint, p_busy uuid[] DEFAULT '{}')
    RETURNS TABLE (job_id uuid, status text, told boolean, account_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    begun timestamptz := clock_timestamp();
    refused boolean := false;
    ids uuid[];
    accounts uuid[];
    tokens bigint[];
    verdicts text[];
    errors text[];
    at_once double precision[];
    settled uuid[];
    statuses text[];
    tellings boolean[];
BEGIN
    SELECT array_agg(l.job_id), array_agg(l.account_id), array_agg(l.lease_token), array_agg(l.verdict),
           array_agg(l.error), array_agg(0)
    INTO ids, accounts, tokens, verdicts, errors, at_once
    FROM punchcard.lapsed(p_limit, p_busy) l;
    IF ids IS NULL THEN
        PERFORM punchcard.enter_deferred(NULL, 200);
        RETURN;
    END IF;
    -- What is answered is what is kept: not before the last of it that can be undone.
    BEGIN
        SET CONSTRAINTS ALL DEFERRED;
        SELECT array_agg(s.job_id), array_agg(s.status), array_agg(s.told) INTO settled, statuses, tellings
        FROM punchcard.settle(ids, tokens, verdicts, at_once, NULL, errors, p_rescue => true) s;
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
        -- The time-out of this statement is over, and would bound nothing any more.
        IF SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second' THEN
            RAISE;
        END IF;
        RAISE LOG 'punchcard: % lapsed jobs are taken back one by one: % %', cardinality(ids),
            SQLSTATE, SQLERRM;
        refused := true;
    END;
    IF refused THEN
        RETURN QUERY SELECT * FROM punchcard.rescue_singly(ids, accounts, tokens, verdicts, errors);
    ELSE
        RETURN QUERY
        SELECT s.job_id, s.status, s.told, l.account_id
        FROM unnest(settled, statuses, tellings) AS s (job_id, status, told)
        JOIN unnest(ids, accounts) AS l (job_id, account_id) ON l.job_id = s.job_id;
    END IF;
    PERFORM punchcard.enter_deferred(NULL, 200);
END $$;
