-- Takes back jobs that have lapsed one by one, for when one of them cannot be taken back at all: that one
-- stays as it is, is answered with a NULL as its status, and keeps no other. After some seconds it leaves the
-- others to the next call.
CREATE OR REPLACE FUNCTION punchcard.rescue_singly(
    p_ids uuid[], p_accounts uuid[], p_tokens bigint[], p_verdicts text[], p_errors text[])
    RETURNS TABLE (job_id uuid, status text, told boolean, account_id uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    began timestamptz := clock_timestamp();
    begun timestamptz;
BEGIN
    FOR n IN 1 .. cardinality(p_ids) LOOP
        begun := clock_timestamp();
        -- Well before a time-out would undo them all; what is not answered is for the next call.
        EXIT WHEN begun > began + interval '3 seconds';
        job_id := p_ids[n];
        account_id := p_accounts[n];
        status := NULL;
        told := false;
        BEGIN
            SET CONSTRAINTS ALL DEFERRED;
            SELECT s.job_id, s.status, s.told INTO job_id, status, told
            FROM punchcard.settle(p_ids[n:n], p_tokens[n:n], p_verdicts[n:n], ARRAY[0], NULL, p_errors[n:n],
                                  p_rescue => true) s;
            SET CONSTRAINTS ALL IMMEDIATE;
            CONTINUE WHEN job_id IS NULL;
        EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
            RAISE LOG 'punchcard: job % cannot be taken back: % %', p_ids[n], SQLSTATE, SQLERRM;
            job_id := p_ids[n];
            status := NULL;
            told := false;
            RETURN NEXT;
            EXIT WHEN SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second';
            CONTINUE;
        END;
        RETURN NEXT;
    END LOOP;
END $$;
