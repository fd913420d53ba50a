-- Takes up to p_limit messages to send, and keeps them for p_lease seconds: then another worker may. No
-- account's are taken before another's because they are more, or older: each that has any due gets an even
-- share, and if p_spare one share is left over. p_accounts, of which the caller has messages already or wants
-- none, get up to p_rooms. Answers where each message goes and by which versions of the account's secret it
-- is signed, with the job as this statement sees it: as what is said of it left it, or later. url is NULL if
-- the webhook is gone meanwhile, or the account erased. Each row says, and one without a message if none was
-- taken, whether there may be `more`, and behind which account (`walked`) it was not looked for.
CREATE OR REPLACE FUNCTION punchcard.claim_deliveries(
    p_limit integer, p_lease double precision, p_spare boolean DEFAULT false, p_accounts uuid[] DEFAULT '{}',
    p_rooms integer[] DEFAULT '{}', p_after uuid DEFAULT '00000000-0000-0000-0000-000000000000')
    RETURNS TABLE (id uuid, event text, url text, attempt smallint, put_back smallint, created_at timestamptz,
                   secret_version integer, old_secret_version integer, kind_secret_version integer,
                   job punchcard.jobs_now, more boolean, walked uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE look AS MATERIALIZED (
        -- As a rule no more are due than these, and they say whose.
        SELECT d.account_id, d.next_at FROM punchcard.outbox d WHERE d.next_at <= now()
        ORDER BY d.next_at LIMIT greatest(4 * p_limit, 200)
    ), looked AS MATERIALIZED (
        SELECT count(*) AS messages, count(*) = greatest(4 * p_limit, 200) AS full FROM look
    ), barred AS MATERIALIZED (
        SELECT coalesce(array_agg(r.account_id), '{}') AS ids
        FROM unnest(p_accounts, p_rooms) AS r (account_id, room)
        WHERE r.room <= 0
    ), walk (account_id, due, n, found) AS (
        -- Else accounts are visited one after the other, each by one step in the index, whose first entry of
        -- an account says whether it has any due: however many one has, they cost one step.
        SELECT f.account_id, f.due, 1, f.due::integer
        FROM looked, barred, LATERAL (
            SELECT d.account_id, d.next_at <= now() AND d.account_id <> ALL (barred.ids) AS due
            FROM punchcard.outbox d
            WHERE d.account_id > p_after ORDER BY d.account_id, d.next_at LIMIT 1) f
        WHERE looked.full
        UNION ALL
        SELECT f.account_id, f.due, w.n + 1, w.found + f.due::integer
        FROM walk w, barred, LATERAL (
            SELECT d.account_id, d.next_at <= now() AND d.account_id <> ALL (barred.ids) AS due
            FROM punchcard.outbox d
            WHERE d.account_id > w.account_id
            ORDER BY d.account_id, d.next_at LIMIT 1) f
        WHERE w.n < 1000 AND w.found < p_limit
    ), lane AS MATERIALIZED (
        -- Who has none on its way goes first.
        SELECT l.account_id, coalesce(r.room, p_limit) AS room
        FROM (SELECT k.account_id, row_number() OVER (ORDER BY min(k.next_at)) AS place
              FROM look k, looked WHERE NOT looked.full GROUP BY k.account_id
              UNION ALL
              SELECT w.account_id, w.n FROM walk w WHERE w.due) l
        LEFT JOIN unnest(p_accounts, p_rooms) AS r (account_id, room) ON r.account_id = l.account_id
        WHERE coalesce(r.room, 1) > 0
        ORDER BY r.room IS NOT NULL, l.place
    ), share AS MATERIALIZED (
        SELECT ceil(p_limit::numeric / (count(*) + p_spare::integer))::integer AS most
        FROM lane HAVING count(*) > 0
    ), due AS MATERIALIZED (
        SELECT d.id FROM share, lane l, LATERAL (
            SELECT d.id FROM punchcard.outbox d WHERE d.account_id = l.account_id AND d.next_at <= now()
              AND d.attempt < 32767  -- never recorded, it would be one too many, and refuse all
            ORDER BY d.next_at LIMIT least(l.room, share.most) FOR NO KEY UPDATE SKIP LOCKED) d
        LIMIT p_limit
    ), taken AS (
        UPDATE punchcard.outbox d
        SET attempt = d.attempt + 1, next_at = now() + make_interval(secs => p_lease)
        WHERE d.id = ANY (ARRAY(SELECT due.id FROM due))
        RETURNING d.*
    )
    SELECT m.*, looked.full OR looked.messages > (SELECT count(*) FROM taken),
           (SELECT w.account_id FROM walk w WHERE w.n = 1000 OR w.found = p_limit ORDER BY w.n DESC LIMIT 1)
    FROM looked LEFT JOIN (
        SELECT t.id, t.event::text,
               CASE WHEN x.account_id IS NOT NULL AND t.event <> 'cancel' THEN NULL
                    WHEN t.url IS NULL THEN CASE WHEN w.disabled_at IS NULL THEN w.url END
                    WHEN NOT EXISTS (SELECT FROM punchcard.deliveries g
                                     WHERE g.job_id = t.job_id AND g.url = t.url AND g.gone)
                    THEN t.url END,
               t.attempt, t.put_back, t.created_at, coalesce(w.secret_version, 1),
               CASE WHEN w.rotated_at > now() - interval '1 day' THEN w.secret_version - 1 END,
               k.secret_version, n
        FROM taken t
        JOIN punchcard.jobs_now n ON n.account_id = t.account_id AND n.id = t.job_id
        JOIN punchcard.kinds k ON k.name = n.kind
        LEFT JOIN punchcard.webhooks w ON w.account_id = t.account_id
        LEFT JOIN punchcard.erasures x ON x.account_id = t.account_id) m ON true;
END $$;
