-- The jobs of a batch as parallel arrays, in their order: read once and sorted once. With the place of the
-- first that has no kind that is offered, too great a priority, too late a time, or an input that
-- `check_input` has to look at.
CREATE OR REPLACE FUNCTION punchcard.read_batch(p_jobs json)
    RETURNS TABLE (kinds text[], inputs json[], bytes integer[], priorities integer[], run_ats timestamptz[],
                   prices bigint[], terms integer[], attempts integer[], lives interval[],
                   wakes double precision[], total bigint, total_bytes bigint, unknown_kind bigint,
                   invalid_priority bigint, max_priority smallint, invalid_run_at bigint,
                   invalid_input bigint)
    LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT array_agg(w.kind), array_agg(w.input), array_agg(w.bytes),
           array_agg(least(coalesce(w.priority, 0), w.max_priority)), array_agg(greatest(w.run_at, now())),
           array_agg(w.price), array_agg(w.terms_id), array_agg(w.max_attempts),
           array_agg(make_interval(secs => w.life_seconds)),
           array_agg(CASE w.dispatch WHEN 'sqs'
                          THEN extract(epoch FROM greatest(w.run_at, now()) - now()) END)
               ::double precision[],
           sum(w.price)::bigint, sum(w.bytes)::bigint,
           min(w.n) FILTER (WHERE w.name IS NULL),
           min(w.n) FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority),
           (array_agg(w.max_priority)
                FILTER (WHERE w.priority <> 0 AND w.priority NOT BETWEEN -10 AND w.max_priority))[1],
           min(w.n) FILTER (WHERE w.run_at > now() + interval '720 hours'),
           min(w.n) FILTER (WHERE w.bytes > 65536 OR position(E'\\u0000' IN w.input::text) > 0)
    -- To json_to_recordset an input that is null is none; where there may be one, the jobs are read again.
    FROM (SELECT r.kind, i.input, octet_length(i.input::text) AS bytes, r.priority, r.run_at, r.n, k.*
          FROM ROWS FROM (json_to_recordset(p_jobs) AS (kind text, input json, priority integer,
                                                        run_at timestamptz),
                          json_array_elements(CASE WHEN position('null' IN p_jobs::text) > 0 THEN p_jobs END))
               WITH ORDINALITY AS r (kind, input, priority, run_at, job, n)
          CROSS JOIN LATERAL (SELECT coalesce(r.input, r.job -> 'input', '{}') AS input) i
          LEFT JOIN punchcard.kinds k ON k.name = r.kind AND k.retired_at IS NULL
          ORDER BY r.n) w
$$;
