-- For the doctor: whether the source can be read, and what waits; no row without a source.
CREATE OR REPLACE FUNCTION punchcard.source_health() RETURNS TABLE (ok boolean, finding text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source punchcard.credit_source;
    waiting bigint;
BEGIN
    SELECT * INTO source FROM punchcard.credit_source;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(sum(a.available), 0)::bigint INTO waiting FROM punchcard.accounts a;
    finding := format('credits come from %s; %s wait to be returned', source.balances, waiting);
    ok := true;
    BEGIN
        PERFORM punchcard.source_balance('00000000-0000-0000-0000-000000000000', false);
        IF source.mover IS NOT NULL
            AND (CASE WHEN source.mover LIKE '%(%' THEN to_regprocedure(source.mover)::oid
                 ELSE to_regproc(source.mover)::oid END) IS NULL
        THEN
            RAISE EXCEPTION USING ERRCODE = 'PT503';
        END IF;
    EXCEPTION WHEN SQLSTATE 'PT503' THEN
        ok := false;
        finding := format(
         'the credit source %s is broken: its table or function is gone, or not ours to use; %s credits wait',
            source.balances, waiting);
    END;
    RETURN NEXT;
END $$;
