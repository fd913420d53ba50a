-- Takes the next step of an erasure (ADR 21): of p_account_id's, or of the one that was asked for first;
-- answers whether there is another step to take now. One that fails is tried again some minutes later, and
-- keeps no other waiting: `erasures` says why.
CREATE OR REPLACE FUNCTION punchcard.erase_payloads(p_account_id uuid DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    erasure punchcard.erasures;
    more boolean;
BEGIN
    SELECT * INTO erasure FROM punchcard.erasures e
    WHERE e.done_at IS NULL AND CASE WHEN p_account_id IS NULL THEN e.look_at <= now()
                                     ELSE e.account_id = p_account_id END
    ORDER BY e.asked_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    BEGIN
        more := punchcard.erase_step(erasure);
        UPDATE punchcard.erasures e SET error = NULL
        WHERE e.account_id = erasure.account_id AND e.error IS NOT NULL AND more;
    EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
        RAISE LOG 'punchcard: erasure of % has to wait: % %', erasure.account_id, SQLSTATE, SQLERRM;
        UPDATE punchcard.erasures e SET look_at = now() + interval '5 minutes', error = left(SQLERRM, 500)
        WHERE e.account_id = erasure.account_id;
        more := false;
    END;
    RETURN more OR p_account_id IS NULL
        AND EXISTS (SELECT FROM punchcard.erasures e WHERE e.done_at IS NULL AND e.look_at <= now());
END $$;
