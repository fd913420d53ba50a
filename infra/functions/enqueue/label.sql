-- Enters what a caller finds their job by.
CREATE OR REPLACE FUNCTION punchcard.label(p_account_id uuid, p_job_id uuid, p_tags text[], p_metadata jsonb)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO punchcard.labels (account_id, label, job_id)
    SELECT p_account_id, t, p_job_id FROM unnest(p_tags) t
    UNION ALL SELECT p_account_id, m.key || '=' || m.value, p_job_id FROM jsonb_each_text(p_metadata) m;
END $$;
