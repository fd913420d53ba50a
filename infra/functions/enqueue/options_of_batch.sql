-- What the jobs of a batch ask for beside their kinds' policies, vetted, as parallel arrays: NULL, and
-- p_attempts, if none asks for anything.
CREATE OR REPLACE FUNCTION punchcard.options_of_batch(p_jobs json, p_attempts integer[])
    RETURNS TABLE (attempts integer[], retries jsonb[], metadata jsonb[], tags jsonb[], webhooks jsonb[],
                   labeled bigint)
    LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT coalesce(array_agg(coalesce(o.max_attempts, w.attempts) ORDER BY w.n), p_attempts),
           array_agg(o.retry ORDER BY w.n), array_agg(o.metadata ORDER BY w.n),
           array_agg(to_jsonb(o.tags) ORDER BY w.n), array_agg(o.webhook ORDER BY w.n),
           count(*) FILTER (WHERE o.metadata IS NOT NULL OR o.tags IS NOT NULL)
    -- As json: jsonb needs many times as much room, and is made of them one by one, and of none that is too
    -- long.
    FROM ROWS FROM (unnest(p_attempts),
                    json_to_recordset(p_jobs) AS (retry json, metadata json, tags json, webhook json))
         WITH ORDINALITY AS w (attempts, retry, metadata, tags, webhook, n)
    LEFT JOIN LATERAL punchcard.check_options(
        CASE WHEN octet_length(concat(w.retry, w.metadata, w.tags, w.webhook)) > 131072 THEN '[]'
             ELSE jsonb_build_object('retry', w.retry, 'metadata', w.metadata, 'tags', w.tags,
                                     'webhook', w.webhook) END,
        w.attempts) o
        ON w.retry IS NOT NULL OR w.metadata IS NOT NULL OR w.tags IS NOT NULL OR w.webhook IS NOT NULL
    -- Few batches ask for any: the others are not read for it.
    WHERE p_jobs::text ~ '"(retry|metadata|tags|webhook)"'
$$;
