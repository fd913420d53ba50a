-- Raises why the entries of a month that is past the retention of money are not carried yet: of an account
-- that has grants with a date, what came in since it was last dealt with is still to be counted
-- (`expire_credits`).
CREATE OR REPLACE FUNCTION punchcard.check_carry() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting record;
BEGIN
    SELECT m.end_id, d.account_id, d.error INTO waiting
    FROM punchcard.retention r
    JOIN punchcard.archived_months m
        ON m.gone_at IS NOT NULL AND m.end_id > r.carried_before
           AND m.end_id <= punchcard.first_id(now() - r.money_days * interval '1 day')
    JOIN punchcard.dated_accounts d ON d.dealt_at < punchcard.uuid_time(m.end_id)
    ORDER BY m.end_id, d.dealt_at LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entries before % are kept: what account % has spent is not dealt to its grants: %',
            to_char(punchcard.uuid_time(waiting.end_id) AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
            waiting.account_id, coalesce(waiting.error, 'no tick has come to it')
            USING ERRCODE = 'object_in_use';
    END IF;
END $$;
