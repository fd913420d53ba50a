-- Retries failed jobs in bulk, oldest first: those of p_kind and, as wished, of one error code, one account,
-- and finished within a time; up to p_limit after (p_after_at, p_after_id), p_per_second of them a second,
-- the first in p_delay seconds. Answers each with the job that it is retried as, or the word of why it is not
-- (such as insufficient_credits; account_busy: somebody has held its account for a quarter of a second;
-- refused_by_database: something else, such as a trigger of the team's, which the server's log tells): it
-- keeps no other from being retried. Walks past 10,000 failed jobs at most: if there may be more behind them,
-- a last row with neither says where the next call goes on.
CREATE OR REPLACE FUNCTION punchcard.redrive(
    p_kind text, p_code text DEFAULT NULL, p_account_id uuid DEFAULT NULL, p_from timestamptz DEFAULT NULL,
    p_until timestamptz DEFAULT NULL, p_limit integer DEFAULT 1000,
    p_per_second double precision DEFAULT NULL, p_delay double precision DEFAULT 0,
    p_after_at timestamptz DEFAULT NULL, p_after_id uuid DEFAULT NULL)
    RETURNS TABLE (job_id uuid, finished_at timestamptz, retried_as uuid, refused text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    failed record;
    busy uuid;
    n integer := 0;
    last record;
    -- Without them, all: so each is a bound of the index, whatever is asked.
    after_at timestamptz := coalesce(p_after_at, '-infinity');
    after_id uuid := coalesce(p_after_id, '00000000-0000-0000-0000-000000000000');
    from_at timestamptz := coalesce(p_from, '-infinity');
    until_at timestamptz := coalesce(p_until, 'infinity');
BEGIN
    IF p_kind IS NULL OR p_limit NOT BETWEEN 1 AND 1000 OR p_per_second NOT BETWEEN 0.001 AND 10000 THEN
        RAISE EXCEPTION 'invalid_redrive' USING ERRCODE = 'PT422',
            DETAIL =
                'A kind is required; the limit is from 1 to 1000, the rate from 0.001 to 10000 a second.';
    END IF;
    SELECT o.finished_at, o.job_id INTO last FROM punchcard.outcomes o
    WHERE o.status = 'failed' AND o.finished_at >= from_at AND o.finished_at < until_at
      AND (o.finished_at, o.job_id) > (after_at, after_id)
    ORDER BY o.finished_at, o.job_id OFFSET 9999 LIMIT 1;
    FOR failed IN
        -- Account by account in their order, so that no two deadlock.
        WITH found AS MATERIALIZED (
            SELECT o.job_id, o.account_id, o.finished_at
            FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.account_id = o.account_id AND j.id = o.job_id
            WHERE o.status = 'failed' AND j.kind = p_kind
              -- What an old system failed at was bought there: it is bought anew if it is asked for by name
              -- alone.
              AND CASE WHEN p_code IS NULL THEN o.error ->> 'code' IS DISTINCT FROM 'imported'
                       ELSE o.error ->> 'code' = p_code END
              AND (p_account_id IS NULL OR o.account_id = p_account_id)
              AND o.finished_at >= from_at AND o.finished_at < until_at
              AND (o.finished_at, o.job_id) > (after_at, after_id)
              AND (o.finished_at, o.job_id) <= (coalesce(last.finished_at, 'infinity'),
                                                coalesce(last.job_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              AND NOT EXISTS (SELECT FROM punchcard.retries r WHERE r.job_id = o.job_id)
            ORDER BY o.finished_at, o.job_id
            LIMIT p_limit
        )
        SELECT f.job_id, f.account_id, f.finished_at,
               row_number() OVER (ORDER BY f.finished_at, f.job_id) - 1 AS place
        FROM found f ORDER BY f.account_id, f.finished_at, f.job_id
    LOOP
        job_id := failed.job_id;
        finished_at := failed.finished_at;
        retried_as := NULL;
        refused := NULL;
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
            EXCEPTION WHEN lock_not_available THEN
                retried_as := NULL;
                busy := failed.account_id;
            WHEN SQLSTATE 'PT402' OR SQLSTATE 'PT409' OR SQLSTATE 'PT422' OR SQLSTATE 'PT429'
                OR SQLSTATE 'PT503' THEN
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
        n := n + 1;
        RETURN NEXT;
    END LOOP;
    IF n < p_limit AND last.job_id IS NOT NULL THEN
        RETURN QUERY SELECT last.job_id, last.finished_at, NULL::uuid, NULL::text;
    END IF;
END $$;
