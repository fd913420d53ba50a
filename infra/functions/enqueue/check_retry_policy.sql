-- Refuses a `retry` that is none: what a job asks for instead of its kind's policy, within the kind's bounds.
CREATE OR REPLACE FUNCTION punchcard.check_retry_policy(p_retry jsonb, p_max_attempts integer) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(p_retry) <> 'object'
        OR p_retry - ARRAY['max_attempts', 'backoff', 'backoff_seconds', 'backoff_max_seconds',
                           'backoff_delays', 'jitter'] <> '{}'
        OR (p_retry ? 'max_attempts' AND NOT punchcard.is_whole(p_retry -> 'max_attempts', 1, p_max_attempts))
        OR (p_retry ? 'backoff_seconds' AND NOT punchcard.is_whole(p_retry -> 'backoff_seconds', 1, 86400))
        OR (p_retry ? 'backoff_max_seconds'
            AND NOT punchcard.is_whole(p_retry -> 'backoff_max_seconds', 1, 86400))
        OR (p_retry ? 'backoff' AND p_retry ->> 'backoff' NOT IN ('exponential', 'linear', 'fixed'))
        OR (p_retry ? 'jitter' AND NOT CASE WHEN jsonb_typeof(p_retry -> 'jitter') = 'number'
                                          THEN (p_retry ->> 'jitter')::numeric BETWEEN 0 AND 1
                                          ELSE false END)
        OR (p_retry ? 'backoff_delays') <> (coalesce(p_retry ->> 'backoff', '') = 'fixed')
        OR (p_retry ? 'backoff_delays' AND NOT CASE WHEN jsonb_typeof(p_retry -> 'backoff_delays') = 'array'
            THEN jsonb_array_length(p_retry -> 'backoff_delays') BETWEEN 1 AND 25
                AND NOT EXISTS (SELECT FROM jsonb_array_elements(p_retry -> 'backoff_delays') d (delay)
                                WHERE NOT punchcard.is_whole(d.delay, 0, 86400)) ELSE false END)
    THEN
        RAISE EXCEPTION 'invalid_retry' USING ERRCODE = 'PT422', DETAIL = format(
            'A retry has, as wished, max_attempts (1 to %s for this kind), backoff (exponential, linear, '
            'or fixed with 1 to 25 backoff_delays), backoff_seconds and backoff_max_seconds (1 to 86400) '
            'and jitter (0 to 1).',
            p_max_attempts);
    END IF;
END $$;
