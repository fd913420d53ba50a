-- For `erase_payloads`: first messages that nobody has heard go; then, some hundred jobs a step, what is
-- unfinished is canceled, or asked to stop, and what is finished loses its payloads; then keys. What was
-- still unfinished, or was just being sent, is looked at again some minutes later, until there is nothing.
-- What was done is done: a step that dies is taken again. Answers whether there is another step to take now.
CREATE OR REPLACE FUNCTION punchcard.erase_step(p_erasure punchcard.erasures) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    account uuid := p_erasure.account_id;
    ids uuid[];
    unfinished uuid[];
    number bigint;
    held uuid;
    why text;
BEGIN
    DELETE FROM punchcard.outbox b
    WHERE b.id = ANY (ARRAY(SELECT m.id FROM punchcard.outbox m
                            WHERE m.account_id = account AND m.event <> 'cancel'
                            ORDER BY m.next_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number > 0 THEN
        UPDATE punchcard.erasures e SET messages = e.messages + number WHERE e.account_id = account;
        RETURN true;
    END IF;

    ids := ARRAY(SELECT j.id FROM punchcard.jobs j
                 WHERE j.account_id = account AND j.id > p_erasure.after_id ORDER BY j.id LIMIT 500);
    IF cardinality(ids) > 0 THEN
        held := punchcard.cancel_all(account, ids);
        unfinished := ARRAY(SELECT q.job_id FROM punchcard.queue q WHERE q.job_id = ANY (ids)
                            ORDER BY q.job_id);
        number := punchcard.clear_payloads(
            account, ARRAY(SELECT i.id FROM unnest(ids) i (id) WHERE i.id <> ALL (unfinished)));
        UPDATE punchcard.erasures e
        SET after_id = ids[cardinality(ids)], jobs = e.jobs + number,
            waits_for = coalesce(e.waits_for, unfinished[1]), held_id = coalesce(e.held_id, held)
        WHERE e.account_id = account;
        RETURN true;
    END IF;

    DELETE FROM punchcard.idempotency_keys k
    WHERE k.account_id = account
      AND k.key = ANY (ARRAY(SELECT o.key FROM punchcard.idempotency_keys o
                             WHERE o.account_id = account LIMIT 5000));
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number > 0 THEN
        UPDATE punchcard.erasures e SET keys = e.keys + number WHERE e.account_id = account;
        RETURN true;
    END IF;
    -- Who set it just when the account was closed.
    DELETE FROM punchcard.webhooks w WHERE w.account_id = account;

    -- What somebody was at is canceled once they are done; what was unfinished is cleared once it is final.
    held := coalesce(p_erasure.held_id,
                     CASE WHEN NOT EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = p_erasure.waits_for)
                          THEN p_erasure.waits_for END);
    IF held IS NOT NULL THEN
        held := least(held, p_erasure.waits_for);
        UPDATE punchcard.erasures e
        SET waits_for = NULL, held_id = NULL, after_id = coalesce(
                (SELECT j.id FROM punchcard.jobs j
                 WHERE j.account_id = account AND j.id < held
                 ORDER BY j.id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000'),
            look_at = now() + CASE WHEN p_erasure.held_id IS NULL THEN '0' ELSE '10 seconds' END::interval,
            error = CASE WHEN p_erasure.held_id IS NOT NULL
                         THEN format('somebody was at job %s', p_erasure.held_id) END
        WHERE e.account_id = account;
        RETURN p_erasure.held_id IS NULL;
    END IF;
    why := CASE
        WHEN p_erasure.waits_for IS NOT NULL THEN (
            SELECT format('job %s of kind %s is unfinished, at the latest until %s', q.job_id, q.kind,
                          to_char(q.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
            FROM punchcard.queue q WHERE q.job_id = p_erasure.waits_for)
        -- Its result is to be recorded, where this has been.
        WHEN EXISTS (SELECT FROM punchcard.outbox b
                     WHERE b.account_id = account AND (b.event <> 'cancel' OR b.attempt <> b.settled))
            THEN 'a message is on its way'
        -- What is no more in `jobs`, and not gone yet, is not found here.
        WHEN EXISTS (SELECT FROM punchcard.archived_months m
                     WHERE m.archived_at IS NOT NULL AND m.gone_at IS NULL)
             OR EXISTS (SELECT FROM pg_catalog.pg_class c
                        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r'
                          AND NOT c.relispartition AND c.relname ~ '_gone$')
            THEN 'a month is on its way out' END;
    UPDATE punchcard.erasures e
    SET done_at = CASE WHEN why IS NULL THEN now() END, error = why,
        look_at = now() + interval '5 minutes',
        -- A message that is recorded meanwhile is looked for from the first job on.
        after_id = CASE WHEN why LIKE 'a message%' THEN '00000000-0000-0000-0000-000000000000'
                        ELSE e.after_id END
    WHERE e.account_id = account;
    RETURN false;
END $$;
