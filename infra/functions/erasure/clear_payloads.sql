-- For `erase_payloads`: takes out of finished jobs of an account what its users and workers wrote; answers
-- how many jobs had some of it. Messages first: what is heard meanwhile is in `deliveries` by then.
CREATE OR REPLACE FUNCTION punchcard.clear_payloads(p_account_id uuid, p_ids uuid[]) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cleared bigint;
    labels text[];    -- each label of these jobs,
    of_jobs uuid[];   -- and which of them has it
BEGIN
    DELETE FROM punchcard.outbox b WHERE b.job_id = ANY (p_ids) AND b.event <> 'cancel';
    -- A provider still hears that it is to stop. Whoever records what it answered is waited for.
    UPDATE punchcard.outbox b SET error = NULL WHERE b.job_id = ANY (p_ids);
    UPDATE punchcard.deliveries d SET url = NULL, error = NULL
    WHERE d.job_id = ANY (p_ids) AND coalesce(d.url, d.error) IS NOT NULL;
    -- Each by its key: an account has very many.
    SELECT array_agg(w.label), array_agg(w.id) INTO labels, of_jobs
    FROM (SELECT j.id, t.label FROM punchcard.jobs j, unnest(j.tags) AS t (label)
          WHERE j.account_id = p_account_id AND j.id = ANY (p_ids)
          UNION
          SELECT j.id, m.name || '=' || m.value
          FROM punchcard.jobs j, jsonb_each_text(j.metadata) AS m (name, value)
          WHERE j.account_id = p_account_id AND j.id = ANY (p_ids)) w;
    DELETE FROM punchcard.labels l USING unnest(labels, of_jobs) AS w (label, job_id)
    WHERE l.account_id = p_account_id AND l.label = w.label AND l.job_id = w.job_id;
    UPDATE punchcard.attempts a SET error = punchcard.erased_error(a.error)
    WHERE a.job_id = ANY (p_ids) AND a.error::text <> punchcard.erased_error(a.error)::text;
    WITH ended AS (
        UPDATE punchcard.outcomes o
        SET output = CASE WHEN o.output IS NOT NULL THEN 'null'::json END,
            error = punchcard.erased_error(o.error)
        WHERE o.job_id = ANY (p_ids)
          AND (o.output::text <> 'null' OR o.error::text <> punchcard.erased_error(o.error)::text)
        RETURNING o.job_id
    ), bought AS (
        UPDATE punchcard.jobs j SET input = '{}', metadata = NULL, tags = NULL, webhook = NULL
        WHERE j.account_id = p_account_id AND j.id = ANY (p_ids)
          AND (j.input::text <> '{}' OR coalesce(j.metadata, to_jsonb(j.tags), j.webhook) IS NOT NULL)
        RETURNING j.id
    )
    SELECT count(*) INTO cleared FROM (SELECT e.job_id FROM ended e UNION SELECT b.id FROM bought b) c;
    RETURN cleared;
END $$;
