-- Tells Realtime of the jobs that a statement ended, on the private channels `punchcard:<account>`. A message
-- is a hint: neither a failure to send it nor a lock that it waits for holds up what it tells of. What would
-- take longer than a tenth of a second in all is not told.
CREATE OR REPLACE FUNCTION punchcard.broadcast_outcomes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms' AS $$
DECLARE
    began timestamptz := clock_timestamp();
    told integer := 0;
    job record;
BEGIN
    FOR job IN SELECT e.job_id, e.account_id, e.status, e.finished_at FROM ended e LOOP
        IF clock_timestamp() > began + interval '100 milliseconds' THEN
            RAISE LOG 'punchcard: realtime.send is slow: % jobs were told, and the others not', told;
            EXIT;
        END IF;
        BEGIN
            PERFORM realtime.send(jsonb_build_object('id', job.job_id, 'status', job.status,
                                                     'finished_at', job.finished_at),
                                  'job.' || job.status::text, 'punchcard:' || job.account_id, true);
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            RAISE LOG 'punchcard: realtime.send: % %', SQLSTATE, SQLERRM;
        END;
        told := told + 1;
    END LOOP;
    RETURN NULL;
END $$;
