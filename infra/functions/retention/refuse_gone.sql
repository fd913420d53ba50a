-- Raises PT410 gone, if p_job_id is the id of a job that was bought, or could have been, in a month that is
-- past its retention: a UUIDv7 of that time, or one that is known to have been a job's. For whoever has found
-- no such job.
CREATE OR REPLACE FUNCTION punchcard.refuse_gone(p_job_id uuid, p_known boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept_from timestamptz;
BEGIN
    IF NOT p_known AND substr(p_job_id::text, 15, 1) <> '7' THEN
        RETURN;
    END IF;
    SELECT punchcard.uuid_time(r.archived_before) INTO kept_from FROM punchcard.retention r
    WHERE p_job_id < r.archived_before;
    IF FOUND THEN
        RAISE EXCEPTION 'gone' USING ERRCODE = 'PT410', DETAIL = format(
            'Jobs that were bought before %s are kept no more; their entries are in the ledger.',
            to_char(kept_from AT TIME ZONE 'UTC', 'YYYY-MM-DD'));
    END IF;
END $$;
