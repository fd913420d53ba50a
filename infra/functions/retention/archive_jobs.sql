-- For `apply_retention`: the entries of a month's next jobs, up to p_limit of them, in the archive: some
-- hundred in a row, so that they are compressed, whosesoever they are. Behind the last of them the month is
-- archived: from that moment on its entries are read there alone.
CREATE OR REPLACE FUNCTION punchcard.archive_jobs(p_month punchcard.archived_months, p_limit bigint)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
DECLARE
    done record;
BEGIN
    WITH bought AS MATERIALIZED (
        SELECT j.account_id, j.id, j.share, j.price, j.entry, j.available_after, j.held_after, j.created_at
        FROM punchcard.jobs j
        WHERE (j.account_id, j.id) > (p_month.after_account, p_month.after_job)
          AND j.id >= (SELECT r.archived_before FROM punchcard.retention r) AND j.id < p_month.end_id
        ORDER BY j.account_id, j.id LIMIT p_limit
    ), ended AS MATERIALIZED (
        SELECT b.account_id, b.id, b.share, b.price, o.finished_at, o.captured,
               coalesce(o.entry, d.entry) AS entry,
               coalesce(o.available_after, d.available_after) AS available_after,
               coalesce(o.held_after, d.held_after) AS held_after
        FROM bought b
        LEFT JOIN LATERAL (SELECT o.* FROM punchcard.outcomes o
                           WHERE o.job_id = b.id AND o.job_id < p_month.end_id LIMIT 1) o ON true
        LEFT JOIN LATERAL (SELECT d.* FROM punchcard.deferred_entries d
                           WHERE d.job_id = b.id AND o.entry IS NULL LIMIT 1) d ON true
    ), placed AS (
        SELECT e.*, (row_number() OVER (ORDER BY e.account_id, e.share, e.entry) - 1) / 250 AS place
        FROM (SELECT b.account_id, b.share, b.entry, punchcard.uuid_time(b.id) AS order_at,
                     b.created_at AS at, b.id AS job_id, b.price, NULL::bigint AS captured,
                     b.available_after, b.held_after
              FROM bought b
              UNION ALL
              SELECT d.account_id, d.share, d.entry, d.finished_at, d.finished_at, d.id, d.price, d.captured,
                     d.available_after, d.held_after
              FROM ended d) e
    ), written AS (
        INSERT INTO punchcard.archive (
            end_id, first_account, last_account, first_share, first_entry, lines, first_at, last_at, accounts,
            shares, entries, at, job_ids, prices, captured, available_after, held_after)
        SELECT p_month.end_id, (array_agg(p.account_id ORDER BY p.account_id, p.share, p.entry))[1],
               (array_agg(p.account_id ORDER BY p.account_id DESC))[1],
               (array_agg(p.share ORDER BY p.account_id, p.share, p.entry))[1],
               (array_agg(p.entry ORDER BY p.account_id, p.share, p.entry))[1],
               sum(CASE WHEN p.captured IS NULL THEN sign(p.price)
                        ELSE sign(p.captured) + sign(p.price - p.captured) END),
               min(p.order_at), max(p.order_at),
               array_agg(p.account_id ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.share ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.entry ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.at ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.job_id ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.price ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.captured ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.available_after ORDER BY p.account_id, p.share, p.entry),
               array_agg(p.held_after ORDER BY p.account_id, p.share, p.entry)
        FROM placed p GROUP BY p.place
        RETURNING last_at
    )
    SELECT (SELECT count(*) FROM bought) AS jobs, (SELECT max(w.last_at) FROM written w) AS last_at,
           (SELECT e.id FROM ended e WHERE e.entry IS NULL LIMIT 1) AS open, l.account_id, l.id
    INTO done
    FROM (SELECT 1) one
    LEFT JOIN (SELECT b.account_id, b.id FROM bought b ORDER BY b.account_id DESC, b.id DESC LIMIT 1) l
        ON true;
    IF done.open IS NOT NULL THEN
        RAISE EXCEPTION 'the end of job % is missing: see `punchcard credits audit`', done.open
            USING ERRCODE = 'data_corrupted';
    END IF;
    IF done.jobs = p_limit THEN
        UPDATE punchcard.archived_months m
        SET after_account = done.account_id, after_job = done.id, jobs = m.jobs + done.jobs,
            last_at = greatest(m.last_at, done.last_at)
        WHERE m.end_id = p_month.end_id;
        RETURN;
    END IF;
    UPDATE punchcard.archived_months m
    SET jobs = m.jobs + done.jobs, last_at = greatest(m.last_at, done.last_at), archived_at = now()
    WHERE m.end_id = p_month.end_id;
    UPDATE punchcard.retention r SET archived_before = p_month.end_id WHERE r.only_one;
    DELETE FROM punchcard.deferred_entries d WHERE d.job_id < p_month.end_id;
END $$;
