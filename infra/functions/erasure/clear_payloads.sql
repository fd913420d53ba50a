-- For `erase_payloads`: takes out of finished jobs of an account what its users and workers wrote; answers
-- how many jobs had some of it. Messages first: what is heard meanwhile is in `deliveries` by then.
CREATE OR REPLACE FUNCTION punchcard.clear_payloads(p_account_id uuid, p_ids uuid[]) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cleared bigint;
BEGIN
    DELETE FROM punchcard.outbox b WHERE b.job_id = ANY (p_ids) AND b.event <> 'cancel';
    UPDATE punchcard.deliveries d SET url = NULL, error = NULL
    WHERE d.job_id = ANY (p_ids) AND coalesce(d.url, d.error) IS NOT NULL;
    DELETE FROM punchcard.labels l WHERE l.account_id = p_account_id AND l.job_id = ANY (p_ids);
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
