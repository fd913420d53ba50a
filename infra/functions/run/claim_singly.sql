-- Claims as `claim` does, job by job, for when one of them cannot be claimed at all (a trigger of the team's,
-- a row that was changed by hand): that one stays as it is, and keeps no other from being claimed. Accounts
-- come in any order, so that none is always the first, and one whose job was refused is passed over. Ends
-- after some seconds.
CREATE OR REPLACE FUNCTION punchcard.claim_singly(
    p_limit bigint, p_kinds text[], p_http boolean, p_budget integer, p_lease double precision,
    p_woken boolean)
    RETURNS TABLE (
        job_id uuid, lease_token bigint, account_id uuid, kind text, attempt smallint, max_attempts smallint,
        input text, url text, secret_version integer, retired boolean, timeout_seconds integer,
        backoff_seconds integer, backoff_max_seconds integer, lasts_seconds double precision,
        priority smallint, run_at_micros bigint, price bigint, metered boolean, backoff text,
        backoff_delays integer[], jitter double precision, retry text, cancel_url text,
        callback_seconds integer, checkpoint text, told boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    salt text := gen_random_uuid()::text;
    began timestamptz;
    begun timestamptz;
    claimed bigint := 0;
    refused uuid[] := '{}';  -- accounts
    known integer;
    -- Of each kind and priority, so that none hides another.
    per_kind bigint := (SELECT greatest(1000 / greatest(count(*), 1), 10)
                        FROM punchcard.served_kinds(p_kinds, p_http, p_budget, p_woken));
    next record;
    one record;
BEGIN
    LOOP
        known := cardinality(refused);
        FOR next IN
            SELECT d.job_id, d.account_id FROM (
                SELECT q.job_id, q.account_id, l.priority, q.run_at
                FROM generate_series(10, -10, -1) AS l (priority)
                CROSS JOIN punchcard.served_kinds(p_kinds, p_http, p_budget, p_woken) AS s (kind)
                CROSS JOIN LATERAL (
                    SELECT q.job_id, q.account_id, q.run_at FROM punchcard.queue q
                    WHERE q.lease_expires_at IS NULL AND q.waiting_until IS NULL AND q.kind = s.kind
                      AND q.priority = l.priority AND q.run_at <= now() AND q.expires_at > now()
                      AND q.account_id <> ALL (refused)
                    ORDER BY q.run_at, q.job_id LIMIT per_kind) q
                ORDER BY l.priority DESC, q.run_at, q.job_id LIMIT 1000) d
            ORDER BY hashtext(d.account_id || salt), d.account_id, d.priority DESC, d.run_at, d.job_id
        LOOP
            began := coalesce(began, clock_timestamp());
            begun := clock_timestamp();
            IF claimed >= p_limit OR begun > began + interval '3 seconds' THEN
                RETURN;
            END IF;
            CONTINUE WHEN next.account_id = ANY (refused);
            -- What is answered is what is kept: not before the last of it that can be undone.
            BEGIN
                SET CONSTRAINTS ALL DEFERRED;
                PERFORM FROM punchcard.queue q
                WHERE q.job_id = next.job_id AND q.lease_expires_at IS NULL AND q.waiting_until IS NULL
                  AND q.run_at <= now() AND q.expires_at > now()
                FOR NO KEY UPDATE SKIP LOCKED;
                CONTINUE WHEN NOT FOUND;
                SELECT * INTO one FROM punchcard.claim(1, p_kinds, p_http, p_budget, p_lease,
                                                       p_named => ARRAY[next.job_id], p_woken => p_woken) c;
                SET CONSTRAINTS ALL IMMEDIATE;
            EXCEPTION
                WHEN transaction_rollback OR insufficient_resources THEN
                    RAISE;  -- of this job it says nothing
                WHEN OTHERS OR assert_failure OR query_canceled THEN
                    RAISE LOG 'punchcard: job % cannot be claimed: % %', next.job_id, SQLSTATE, SQLERRM;
                    -- The time-out of this statement is over, and bounds nothing any more.
                    IF SQLSTATE = '57014' AND clock_timestamp() > begun + interval '1 second' THEN
                        RETURN;
                    END IF;
                    refused := refused || next.account_id;
                    CONTINUE;
            END;
            IF one.job_id IS NOT NULL THEN
                claimed := claimed + 1;
                RETURN QUERY
                SELECT one.job_id, one.lease_token, one.account_id, one.kind, one.attempt, one.max_attempts,
                       one.input, one.url, one.secret_version, one.retired, one.timeout_seconds,
                       one.backoff_seconds, one.backoff_max_seconds, one.lasts_seconds, one.priority,
                       one.run_at_micros, one.price, one.metered, one.backoff, one.backoff_delays, one.jitter,
                       one.retry, one.cancel_url, one.callback_seconds, one.checkpoint, one.told;
            END IF;
        END LOOP;
        -- Those behind the jobs of accounts that are passed over now.
        EXIT WHEN cardinality(refused) = known;
    END LOOP;
END $$;
