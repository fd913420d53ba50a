-- What a worker says of the jobs that it is running, and hears: notes their progress and what they save, and
-- answers those of which something was noted, and those that are to be canceled. NULLs are nothing new. A job
-- that somebody else holds is not waited for: what is said of it is to be said again.
CREATE OR REPLACE FUNCTION punchcard.check_in(
    p_job_ids uuid[], p_lease_tokens bigint[], p_percents smallint[], p_messages text[], p_checkpoints text[])
    RETURNS TABLE (job_id uuid, noted boolean, to_cancel boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH said AS MATERIALIZED (
        SELECT * FROM unnest(p_job_ids, p_lease_tokens, p_percents, p_messages, p_checkpoints)
            AS s (job_id, lease_token, percent, message, checkpoint)
        ORDER BY s.job_id
    ), free AS MATERIALIZED (
        SELECT s.* FROM said s JOIN punchcard.queue q ON q.job_id = ANY (ARRAY[s.job_id])
        WHERE q.lease_token = s.lease_token AND q.lease_expires_at > clock_timestamp()
          AND (s.percent IS NOT NULL OR s.message IS NOT NULL OR s.checkpoint IS NOT NULL)
        FOR NO KEY UPDATE OF q SKIP LOCKED
    ), noted AS (
        UPDATE punchcard.queue q
        SET progress_percent = coalesce(s.percent, q.progress_percent),
            progress_message = coalesce(s.message, q.progress_message),
            progress_at = CASE WHEN s.percent IS NULL AND s.message IS NULL THEN q.progress_at ELSE now() END,
            checkpoint = coalesce(s.checkpoint::json, q.checkpoint)
        FROM free s
        WHERE q.job_id = ANY (ARRAY[s.job_id])
        RETURNING q.job_id, q.lease_token
    )
    SELECT s.job_id, n.job_id IS NOT NULL, q.cancel_requested_at IS NOT NULL
    FROM said s
    LEFT JOIN punchcard.queue q ON q.job_id = ANY (ARRAY[s.job_id]) AND q.lease_token = s.lease_token
    LEFT JOIN noted n ON n.job_id = s.job_id AND n.lease_token = s.lease_token
    WHERE n.job_id IS NOT NULL OR q.cancel_requested_at IS NOT NULL;
END $$;
