-- Locks the rows of these jobs, as far as nobody else holds them. What somebody else holds is waited for, for
-- p_patience milliseconds in all, in equal parts; while that is less than `deadlock_timeout`, no deadlock
-- comes of it. Answers the jobs that are still out of reach.
CREATE OR REPLACE FUNCTION punchcard.lock_for_settling(
    p_job_ids uuid[], p_lease_tokens bigint[], p_patience integer)
    RETURNS uuid[]
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until timestamptz := clock_timestamp() + p_patience * interval '1 millisecond';
    out_of_reach uuid[] := '{}';
    mine uuid[];
    held record;
    patience double precision;
BEGIN
    mine := ARRAY(
        SELECT q.job_id FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
        JOIN punchcard.queue q ON q.job_id = ANY (ARRAY[v.job_id]) AND q.lease_token = v.lease_token
        ORDER BY v.job_id FOR NO KEY UPDATE OF q SKIP LOCKED);
    FOR held IN
        SELECT v.job_id, count(*) OVER () - row_number() OVER (ORDER BY v.job_id) + 1 AS waiting
        FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
        JOIN punchcard.queue q ON q.job_id = ANY (ARRAY[v.job_id]) AND q.lease_token = v.lease_token
        WHERE q.job_id <> ALL (mine) ORDER BY v.job_id
    LOOP
        patience := extract(epoch FROM until - clock_timestamp()) * 1000 / held.waiting;
        IF patience >= 1 THEN
            BEGIN
                PERFORM set_config('lock_timeout', floor(patience)::text, true);
                PERFORM FROM punchcard.queue q WHERE q.job_id = held.job_id FOR NO KEY UPDATE;
                CONTINUE;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                NULL;
            END;
        END IF;
        out_of_reach := out_of_reach || held.job_id;
    END LOOP;
    RETURN out_of_reach;
END $$;
