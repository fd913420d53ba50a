-- Raises what a month, and all before it, has to wait for before it may go: a job that is unfinished, a
-- message that nobody has heard, an entry that waits for its account.
CREATE OR REPLACE FUNCTION punchcard.check_month(p_end uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    why text;
BEGIN
    SELECT w.why INTO why FROM (
        (SELECT format('job %s is unfinished', q.job_id) AS why FROM punchcard.queue q
         WHERE q.job_id < p_end ORDER BY q.job_id LIMIT 1)
        UNION ALL
        (SELECT format('message %s of job %s is still to be sent', b.id, b.job_id) FROM punchcard.outbox b
         WHERE b.job_id < p_end ORDER BY b.job_id LIMIT 1)
        UNION ALL
        (SELECT format('the end of job %s is not entered yet', d.job_id) FROM punchcard.deferred_entries d
         WHERE d.job_id < p_end AND d.entry IS NULL ORDER BY d.job_id LIMIT 1)) w
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'what was bought before % is kept: %',
            to_char(punchcard.uuid_time(p_end) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), why
            USING ERRCODE = 'object_in_use';
    END IF;
END $$;
