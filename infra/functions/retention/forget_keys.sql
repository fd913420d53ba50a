-- Deletes idempotency keys that are past their retention, and whose jobs are gone: looks at the next part of
-- the table, in the order in which it lies, and answers whether there is more of it. No index of the table
-- says how old a key is: that would cost each purchase more than this costs once a day.
CREATE OR REPLACE FUNCTION punchcard.forget_keys() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept punchcard.retention;
    blocks bigint := pg_relation_size('punchcard.idempotency_keys') / current_setting('block_size')::bigint;
    behind bigint;
BEGIN
    SELECT * INTO kept FROM punchcard.retention;
    IF kept.key_days IS NULL OR kept.archived_before = '00000000-0000-0000-0000-000000000000' THEN
        RETURN false;
    END IF;
    behind := kept.keys_block + 500;
    DELETE FROM punchcard.idempotency_keys k
    WHERE k.ctid >= format('(%s,0)', kept.keys_block)::tid AND k.ctid < format('(%s,0)', behind)::tid
      AND coalesce(k.last_job_id, k.job_id) < least(
              kept.archived_before, punchcard.first_id(now() - kept.key_days * interval '1 day'));
    UPDATE punchcard.retention r SET keys_block = CASE WHEN behind < blocks THEN behind ELSE 0 END
    WHERE r.only_one;
    RETURN behind < blocks;
END $$;
