-- What is captured of a job's price when a verdict ends it. The planner puts this in its caller's place, so
-- that what is not asked for is not looked up: the last six are named once each, and no part of it is a
-- query.
CREATE OR REPLACE FUNCTION punchcard.captured(
    p_verdict punchcard.verdict, p_price bigint, p_used bigint, p_to_cancel boolean, p_under_way boolean,
    p_has_run boolean, p_metered boolean, p_on_cancel punchcard.charge, p_on_input_error punchcard.charge)
    RETURNS bigint
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_verdict = 'complete'
                     OR (p_verdict = 'reject' AND p_on_input_error = 'capture')
                     -- Canceled while it ran or waited outside, or between two runs: what was done for it is
                     -- paid for.
                     OR (p_verdict NOT IN ('fail', 'reject', 'overdue') AND p_to_cancel
                         AND p_on_cancel = 'capture'
                         AND ((p_verdict <> 'return' AND p_under_way) OR p_has_run))
                THEN CASE WHEN p_verdict = 'complete' AND p_used < p_price
                          THEN CASE WHEN p_metered THEN greatest(p_used, 0) ELSE p_price END
                          ELSE p_price END
                ELSE 0 END
$$;
