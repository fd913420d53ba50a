-- Takes the next step of an erasure (ADR 21): of p_account_id's, or of the one that was asked for first.
-- Answers whether there is another step to take now. First messages that nobody has heard go; then, some
-- hundred jobs a step, what is unfinished is canceled, or asked to stop, and what is finished loses its
-- payloads; then keys. Jobs that were still unfinished are looked at again some minutes later, until there is
-- none. What was done is done: a step that dies is taken again.
CREATE OR REPLACE FUNCTION punchcard.erase_payloads(p_account_id uuid DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET jit = off
    SET lock_timeout = '1s' AS $$
DECLARE
    erasure punchcard.erasures;
    ids uuid[];
    unfinished uuid[];
    number bigint;
BEGIN
    SELECT * INTO erasure FROM punchcard.erasures e
    WHERE e.done_at IS NULL AND CASE WHEN p_account_id IS NULL THEN e.look_at <= now()
                                     ELSE e.account_id = p_account_id END
    ORDER BY e.asked_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    DELETE FROM punchcard.outbox b
    WHERE b.id = ANY (ARRAY(SELECT m.id FROM punchcard.outbox m
                            WHERE m.account_id = erasure.account_id AND m.event <> 'cancel'
                            ORDER BY m.next_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number > 0 THEN
        UPDATE punchcard.erasures e SET messages = e.messages + number
        WHERE e.account_id = erasure.account_id;
        RETURN true;
    END IF;

    ids := ARRAY(SELECT j.id FROM punchcard.jobs j
                 WHERE j.account_id = erasure.account_id AND j.id > erasure.after_id
                 ORDER BY j.id LIMIT 500);
    IF cardinality(ids) > 0 THEN
        PERFORM punchcard.cancel_all(erasure.account_id, ids);
        unfinished := ARRAY(SELECT q.job_id FROM punchcard.queue q WHERE q.job_id = ANY (ids)
                            ORDER BY q.job_id);
        number := punchcard.clear_payloads(
            erasure.account_id, ARRAY(SELECT i.id FROM unnest(ids) i (id) WHERE i.id <> ALL (unfinished)));
        UPDATE punchcard.erasures e
        SET after_id = ids[cardinality(ids)], jobs = e.jobs + number,
            waits_for = coalesce(e.waits_for, unfinished[1])
        WHERE e.account_id = erasure.account_id;
        RETURN true;
    END IF;

    DELETE FROM punchcard.idempotency_keys k
    WHERE k.account_id = erasure.account_id
      AND k.key = ANY (ARRAY(SELECT o.key FROM punchcard.idempotency_keys o
                             WHERE o.account_id = erasure.account_id LIMIT 5000));
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number > 0 THEN
        UPDATE punchcard.erasures e SET keys = e.keys + number WHERE e.account_id = erasure.account_id;
        RETURN true;
    END IF;

    IF erasure.waits_for IS NULL THEN
        UPDATE punchcard.erasures e SET done_at = now() WHERE e.account_id = erasure.account_id;
    ELSIF EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = erasure.waits_for) THEN
        UPDATE punchcard.erasures e SET look_at = now() + interval '5 minutes'
        WHERE e.account_id = erasure.account_id;
    ELSE
        -- From there on anew.
        UPDATE punchcard.erasures e
        SET waits_for = NULL, look_at = now(), after_id = coalesce(
                (SELECT j.id FROM punchcard.jobs j
                 WHERE j.account_id = erasure.account_id AND j.id < erasure.waits_for
                 ORDER BY j.id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')
        WHERE e.account_id = erasure.account_id;
        RETURN true;
    END IF;
    RETURN p_account_id IS NULL
        AND EXISTS (SELECT FROM punchcard.erasures e WHERE e.done_at IS NULL AND e.look_at <= now());
END $$;
