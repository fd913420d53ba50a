-- Locks what verdicts move, as far as nobody else holds it: the queue rows (unless p_rescue: the caller holds them), then the
-- accounts of the jobs that end. What somebody else holds is waited for, for p_patience milliseconds in all, in equal parts;
-- while that is less than `deadlock_timeout`, no deadlock comes of it. Answers the jobs that are still out of reach.
CREATE OR REPLACE FUNCTION punchcard.lock_for_settling(
    p_job_ids uuid[], p_lease_tokens bigint[], p_verdicts text[], p_rescue boolean, p_patience integer) RETURNS uuid[]
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until timestamptz := clock_timestamp() + p_patience * interval '1 millisecond';
    mine uuid[] := p_job_ids;
    out_of_reach uuid[] := '{}';
    held text[] := '{}';  -- elsewhere: account, share and jobs of each, as JSON
    account record;
    patience double precision;
BEGIN
    IF NOT p_rescue THEN
        mine := ARRAY(
            SELECT q.job_id FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
            JOIN punchcard.queue q ON q.job_id = v.job_id AND q.lease_token = v.lease_token
            ORDER BY q.job_id FOR NO KEY UPDATE OF q SKIP LOCKED);
        out_of_reach := ARRAY(
            SELECT q.job_id FROM unnest(p_job_ids, p_lease_tokens) AS v (job_id, lease_token)
            JOIN punchcard.queue q ON q.job_id = v.job_id AND q.lease_token = v.lease_token
            WHERE q.job_id <> ALL (mine));
    END IF;
    FOR account IN
        SELECT q.account_id, q.share, array_agg(q.job_id) AS job_ids
        FROM unnest(p_job_ids, p_verdicts) AS v (job_id, verdict) JOIN punchcard.queue q ON q.job_id = v.job_id
        WHERE q.job_id = ANY (mine)
          AND (v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue') OR q.cancel_requested_at IS NOT NULL
               OR (v.verdict = 'crash' AND q.crashes + 1 >= q.max_crashes)
               OR (v.verdict = 'retry' AND q.attempt >= q.max_attempts))
        GROUP BY q.account_id, q.share ORDER BY q.account_id, q.share
    LOOP
        PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
        FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            held := held || row_to_json(account)::text;
        END IF;
    END LOOP;
    FOR account IN
        SELECT h.account_id, h.share, h.job_ids, count(*) OVER () - row_number() OVER () + 1 AS waiting
        FROM unnest(held) AS e (held), json_to_record(e.held::json) AS h (account_id uuid, share smallint, job_ids uuid[])
    LOOP
        patience := extract(epoch FROM until - clock_timestamp()) * 1000 / account.waiting;
        IF patience >= 1 THEN
            BEGIN
                PERFORM set_config('lock_timeout', floor(patience)::text, true);
                PERFORM FROM punchcard.accounts a WHERE a.id = account.account_id AND a.share = account.share
                FOR NO KEY UPDATE;
                CONTINUE;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                NULL;
            END;
        END IF;
        out_of_reach := out_of_reach || account.job_ids;
    END LOOP;
    RETURN out_of_reach;
END $$;
