-- Turns these messages on or off, and lets signed-in users receive those of their own channel.
CREATE OR REPLACE FUNCTION punchcard.set_realtime(p_on boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DROP TRIGGER IF EXISTS outcomes_are_broadcast ON punchcard.outcomes;
    IF to_regclass('realtime.messages') IS NOT NULL THEN
        DROP POLICY IF EXISTS punchcard_own_channel ON realtime.messages;
    END IF;
    IF NOT p_on THEN
        RETURN;
    END IF;
    IF to_regprocedure('realtime.send(jsonb,text,text,boolean)') IS NULL THEN
        RAISE EXCEPTION 'no_realtime' USING ERRCODE = 'PT422', DETAIL = 'This database has no realtime.send.';
    END IF;
    CREATE TRIGGER outcomes_are_broadcast AFTER INSERT ON punchcard.outcomes
        REFERENCING NEW TABLE AS ended
        FOR EACH STATEMENT EXECUTE FUNCTION punchcard.broadcast_outcomes();
    CREATE POLICY punchcard_own_channel ON realtime.messages FOR SELECT TO authenticated
        USING ((SELECT realtime.topic()) = 'punchcard:' || (SELECT auth.uid())::text);
END $$;
