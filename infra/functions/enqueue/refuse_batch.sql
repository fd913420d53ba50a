-- Refuses a batch for the first of its jobs that is not one to be bought, and says which: as `read_batch`
-- found them. For an input only if `check_input` does.
CREATE OR REPLACE FUNCTION punchcard.refuse_batch(
    p_unknown_kind bigint, p_invalid_priority bigint, p_max_priority smallint, p_invalid_run_at bigint,
    p_inputs json[]) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF p_unknown_kind IS NOT NULL THEN
        RAISE EXCEPTION 'unknown_kind' USING ERRCODE = 'PT422',
            DETAIL = json_build_object('job', p_unknown_kind, 'detail', format(
                'Job %s of the batch: no such kind is offered.', p_unknown_kind))::text;
    ELSIF p_invalid_priority IS NOT NULL THEN
        RAISE EXCEPTION 'invalid_priority' USING ERRCODE = 'PT422',
            DETAIL = json_build_object('job', p_invalid_priority, 'detail', format(
                'Job %s of the batch: a priority of this kind is from -10 to %s.', p_invalid_priority,
                p_max_priority))::text;
    ELSIF p_invalid_run_at IS NOT NULL THEN
        RAISE EXCEPTION 'invalid_run_at' USING ERRCODE = 'PT422',
            DETAIL = json_build_object('job', p_invalid_run_at, 'detail', format(
                'Job %s of the batch: a job waits for 30 days at most.', p_invalid_run_at))::text;
    END IF;
    PERFORM punchcard.check_input(w) FROM unnest(p_inputs) w;
END $$;
