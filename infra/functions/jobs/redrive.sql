-- Retries failed jobs in bulk, oldest first: those of p_kind, or of p_account_id, or both, and, as wished, of
-- one error code, and finished within a time; up to p_limit after (p_after_at, p_after_id), p_per_second of
-- them a second, the first in p_delay seconds. Answers each with the job that it is retried as, and its
-- price, or the word of why it is not (such as insufficient_credits; account_busy: somebody has held its
-- account for a quarter of a second; refused_by_database: something else, such as a trigger of the team's,
-- which the server's log tells): it keeps no other from being retried. Walks past 10,000 failed jobs at most:
-- if there may be more behind them, a last row with neither says where the next call goes on.
CREATE OR REPLACE FUNCTION punchcard.redrive(
    p_kind text, p_code text DEFAULT NULL, p_account_id uuid DEFAULT NULL, p_from timestamptz DEFAULT NULL,
    p_until timestamptz DEFAULT NULL, p_limit integer DEFAULT 1000,
    p_per_second double precision DEFAULT NULL, p_delay double precision DEFAULT 0,
    p_after_at timestamptz DEFAULT NULL, p_after_id uuid DEFAULT NULL)
    RETURNS TABLE (job_id uuid, finished_at timestamptz, retried_as uuid, refused text, price bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    failed record;
    busy uuid;
    next_at timestamptz;
    next_id uuid;
BEGIN
    IF coalesce(p_kind, p_account_id::text) IS NULL OR p_limit NOT BETWEEN 1 AND 1000
        OR p_per_second NOT BETWEEN 0.001 AND 10000
    THEN
        RAISE EXCEPTION 'invalid_redrive' USING ERRCODE = 'PT422', DETAIL =
            'Name a kind or an account; the limit is from 1 to 1000, the rate from 0.001 to 10000 a second.';
    END IF;
    FOR failed IN
        -- Account by account in their order, so that no two deadlock.
        SELECT f.job_id, f.account_id, f.finished_at, f.next_at, f.next_id,
               row_number() OVER (ORDER BY f.finished_at, f.job_id) - 1 AS place
        FROM punchcard.find_redrivable(p_kind, p_code, p_account_id, p_from, p_until, p_limit, p_after_at,
                                       p_after_id) f
        ORDER BY f.account_id, f.finished_at, f.job_id
    LOOP
        next_at := failed.next_at;
        next_id := failed.next_id;
        EXIT WHEN failed.job_id IS NULL;
        job_id := failed.job_id;
        finished_at := failed.finished_at;
        retried_as := NULL;
        refused := NULL;
        price := NULL;
        IF failed.account_id IS DISTINCT FROM busy THEN
            BEGIN
                -- All shares in their order before any of them: the next job of this account may need another
                -- one.
                PERFORM FROM punchcard.accounts a
                WHERE a.id = failed.account_id ORDER BY a.share FOR NO KEY UPDATE;
                SET CONSTRAINTS ALL DEFERRED;
                SELECT r.job_id INTO retried_as FROM punchcard.retry(
                    failed.job_id, failed.account_id,
                    clock_timestamp()
                        + make_interval(secs => p_delay + coalesce(failed.place / p_per_second, 0))) r;
                SET CONSTRAINTS ALL IMMEDIATE;
                SELECT q.price INTO price FROM punchcard.queue q WHERE q.job_id = retried_as;
            EXCEPTION WHEN lock_not_available THEN
                retried_as := NULL;
                busy := failed.account_id;
            WHEN SQLSTATE 'PT402' OR SQLSTATE 'PT403' OR SQLSTATE 'PT409' OR SQLSTATE 'PT422'
                OR SQLSTATE 'PT429' OR SQLSTATE 'PT503' THEN
                retried_as := NULL;
                refused := SQLERRM;
            -- These are not about this job: all of it is sent again, or later.
            WHEN transaction_rollback OR insufficient_resources THEN
                RAISE;
            WHEN OTHERS OR assert_failure THEN
                retried_as := NULL;
                RAISE LOG 'punchcard: job % cannot be retried: % %', failed.job_id, SQLSTATE, SQLERRM;
                refused := 'refused_by_database';
            END;
        END IF;
        IF failed.account_id = busy THEN
            refused := 'account_busy';
        END IF;
        RETURN NEXT;
    END LOOP;
    IF next_id IS NOT NULL THEN
        RETURN QUERY SELECT next_id, next_at, NULL::uuid, NULL::text, NULL::bigint;
    END IF;
END $$;
