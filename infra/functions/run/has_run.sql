-- Whether a run of a job has ended that did something for it, or may have: what canceling it costs from then
-- on is its kind's `on_cancel`. A run that was put off because what it relies on was away did nothing, and
-- one that was handed back before it began left no trace. Of the runs that `attempts` keeps: the first 1,000.
CREATE OR REPLACE FUNCTION punchcard.has_run(p_job_id uuid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM punchcard.attempts a
                   WHERE a.job_id = p_job_id AND (a.ended <> 'snooze' OR a.error IS NULL))
$$;
