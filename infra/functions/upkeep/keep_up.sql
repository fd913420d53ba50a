-- Takes a step of a task of upkeep, if it is due, and answers whether there is another; once there is none,
-- it is due again in p_every seconds. Of ten that ask at once one takes the step. One that cannot be taken is
-- tried again within ten minutes, and `upkeep` and the server's log say why; one that dies half-way was not
-- taken.
CREATE OR REPLACE FUNCTION punchcard.keep_up(p_task text, p_every integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    more boolean;
BEGIN
    PERFORM FROM punchcard.upkeep u WHERE u.task = p_task AND u.next_at <= now()
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    BEGIN
        CASE p_task
            WHEN 'periods' THEN more := punchcard.make_periods();
            WHEN 'retention' THEN more := punchcard.apply_retention();
            WHEN 'keys' THEN more := punchcard.forget_keys();
            WHEN 'erasures' THEN more := punchcard.erase_payloads();
            WHEN 'audit' THEN more := punchcard.audit_next();
            WHEN 'expiries' THEN more := punchcard.expire_credits();
            ELSE RAISE EXCEPTION 'unknown_task' USING ERRCODE = 'PT422',
                DETAIL = 'There is no function for this task.';
        END CASE;
    -- A time-out, too: all who came behind it waited as long.
    EXCEPTION WHEN OTHERS OR assert_failure OR query_canceled THEN
        RAISE LOG 'punchcard: upkeep of % has to wait: % %', p_task, SQLSTATE, SQLERRM;
        UPDATE punchcard.upkeep u
        SET next_at = now() + least(p_every, 600) * interval '1 second', error = left(SQLERRM, 500)
        WHERE u.task = p_task;
        RETURN false;
    END;
    IF NOT more THEN
        UPDATE punchcard.upkeep u
        SET next_at = now() + p_every * interval '1 second', done_at = now(),
            -- What the audit found is no reason to wait.
            error = CASE WHEN p_task = 'audit' THEN u.error END
        WHERE u.task = p_task;
    END IF;
    RETURN more;
END $$;
