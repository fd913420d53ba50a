-- Buys a failed or canceled job once more, at its kind's price of now: a new job with an id and a hold of its
-- own. The old one stays as it is. Refuses as `check_retry_of` and `enqueue` do.
CREATE OR REPLACE FUNCTION punchcard.retry(
    p_job_id uuid, p_account_id uuid DEFAULT NULL, p_run_at timestamptz DEFAULT NULL,
    OUT job_id uuid, OUT account_id uuid, OUT wake_after double precision)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old punchcard.jobs;
    bought record;
BEGIN
    -- Whose it is, by a row that names the job by its id alone.
    SELECT coalesce((SELECT o.account_id FROM punchcard.outcomes o WHERE o.job_id = p_job_id),
                    (SELECT q.account_id FROM punchcard.queue q WHERE q.job_id = p_job_id)) INTO account_id;
    IF account_id IS NULL OR account_id <> coalesce(p_account_id, account_id) THEN
        PERFORM punchcard.refuse_gone(p_job_id);
        RAISE EXCEPTION 'not_found' USING ERRCODE = 'PT404', DETAIL = 'There is nothing here.';
    END IF;
    PERFORM punchcard.refuse_closed(account_id, p_wait => false);
    SELECT * INTO old FROM punchcard.jobs j WHERE j.account_id = retry.account_id AND j.id = p_job_id;
    IF NOT FOUND THEN
        PERFORM punchcard.refuse_gone(p_job_id, true);
        RAISE no_data_found;
    END IF;
    SELECT * INTO bought FROM punchcard.enqueue(account_id, old.kind, old.input, NULL, old.priority, p_run_at,
        jsonb_strip_nulls(jsonb_build_object(
            'retry_of', p_job_id, 'metadata', old.metadata, 'tags', to_jsonb(old.tags),
            'webhook', old.webhook,
            'retry', nullif(coalesce(old.retry, '{}') || CASE WHEN old.max_attempts = (
                SELECT k.max_attempts FROM punchcard.kinds k WHERE k.name = old.kind) THEN '{}'
                ELSE jsonb_build_object('max_attempts', old.max_attempts) END, '{}'))));
    job_id := bought.job_id;
    wake_after := bought.wake_after;
END $$;
