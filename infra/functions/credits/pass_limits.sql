-- Lets so many jobs more pass the account's limits, or refuses: PT429 too_many_jobs, too_many_bytes,
-- too_many_enqueues; PT422 over_limit if they never could. Share 0 is locked first, so that no two buyers
-- pass where one may. Enqueues are paced as by the generic cell rate algorithm (ITU-T I.371): a minute's
-- worth at once, then one for each part of a minute that has passed. p_look only looks: it locks nothing, and
-- whoever passes it may still be refused.
CREATE OR REPLACE FUNCTION punchcard.pass_limits(
    p_account_id uuid, p_jobs integer, p_bytes bigint, p_look boolean DEFAULT false)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    limits punchcard.limits;
    until timestamptz;
    jobs bigint;
    bytes bigint;
    refused text;
    most bigint;
    seconds integer := 60;
BEGIN
    SELECT * INTO limits FROM punchcard.limits c
    WHERE c.account_id IN (p_account_id, '00000000-0000-0000-0000-000000000000')
    ORDER BY c.account_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_jobs > 1 AND p_jobs > least(limits.unfinished_jobs, limits.enqueues_per_minute)
        OR p_bytes > limits.unfinished_bytes
    THEN
        RAISE EXCEPTION 'over_limit' USING ERRCODE = 'PT422', DETAIL = format(
            'An account may have %s unfinished jobs with %s bytes of input, and enqueue %s a minute.',
            coalesce(limits.unfinished_jobs::text, 'any number of'),
            coalesce(limits.unfinished_bytes::text, 'any number of'),
            coalesce(limits.enqueues_per_minute::text, 'any number'));
    END IF;
    IF p_look THEN
        SELECT greatest(a.paced_until, clock_timestamp())
               + interval '1 minute' / limits.enqueues_per_minute * p_jobs INTO until
        FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0;
    ELSE
        INSERT INTO punchcard.accounts (id) VALUES (p_account_id) ON CONFLICT DO NOTHING;
        SELECT greatest(a.paced_until, clock_timestamp())
               + interval '1 minute' / limits.enqueues_per_minute * p_jobs INTO until
        FROM punchcard.accounts a WHERE a.id = p_account_id AND a.share = 0 FOR NO KEY UPDATE;
    END IF;
    -- Those whose end waits to be entered have ended.
    SELECT sum(a.unfinished_jobs) - w.jobs, sum(a.unfinished_bytes) - w.bytes INTO jobs, bytes
    FROM punchcard.accounts a,
         (SELECT count(*) AS jobs, coalesce(sum(d.bytes), 0) AS bytes FROM punchcard.deferred_entries d
          WHERE d.account_id = p_account_id AND d.entry IS NULL) w
    WHERE a.id = p_account_id GROUP BY w.jobs, w.bytes;
    IF jobs + p_jobs > limits.unfinished_jobs THEN
        refused := 'too_many_jobs';
        most := limits.unfinished_jobs;
    ELSIF bytes + p_bytes > limits.unfinished_bytes THEN
        refused := 'too_many_bytes';
        most := limits.unfinished_bytes;
    ELSIF until > clock_timestamp() + interval '1 minute' THEN
        refused := 'too_many_enqueues';
        most := limits.enqueues_per_minute;
        seconds := greatest(ceil(extract(epoch FROM until - clock_timestamp() - interval '1 minute')), 1);
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused USING ERRCODE = 'PT429', DETAIL = json_build_object('detail',
            CASE refused WHEN 'too_many_jobs' THEN 'The account has as many unfinished jobs as it may.'
                         WHEN 'too_many_bytes'
                         THEN 'The inputs of the account''s unfinished jobs have as many bytes as they may.'
                         ELSE 'The account has enqueued as many jobs in a minute as it may.' END,
            'limit', most, 'retry_after', seconds)::text;
    END IF;
    IF NOT p_look THEN
        UPDATE punchcard.accounts a SET paced_until = until
        WHERE a.id = p_account_id AND a.share = 0 AND until IS NOT NULL;
    END IF;
END $$;
