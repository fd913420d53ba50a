-- Tells Realtime of a job that has ended, on the private channel `punchcard:<account>`. A message is a hint:
-- a failure to send it never holds up what it tells of.
CREATE OR REPLACE FUNCTION punchcard.broadcast_outcome() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM realtime.send(jsonb_build_object('id', NEW.job_id, 'status', NEW.status,
                                             'finished_at', NEW.finished_at),
                          'job.' || NEW.status::text, 'punchcard:' || NEW.account_id, true);
    RETURN NULL;
EXCEPTION WHEN OTHERS OR assert_failure THEN
    RAISE LOG 'punchcard: realtime.send: % %', SQLSTATE, SQLERRM;
    RETURN NULL;
END $$;
