-- Of `find_entries`, what is in the archive, and what is carried: up to p_limit entries, none of them before
-- p_floor. Reads the rows of the archive that a page of this length needs, newest first.
CREATE OR REPLACE FUNCTION punchcard.find_archived(
    p_account_id uuid, p_before_at timestamptz, p_before_key uuid, p_before_part smallint,
    p_floor timestamptz, p_limit bigint)
    RETURNS TABLE (at timestamptz, key uuid, part smallint, entry bigint, kind text, available bigint,
                   held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text,
                   reason text, share smallint, created_at timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    floor_at timestamptz := p_floor;
    month record;
    months uuid[] := '{}';
    enough timestamptz;
BEGIN
    FOR month IN
        SELECT m.end_id, m.last_at FROM punchcard.archived_months m, punchcard.retention r
        WHERE m.end_id <= r.archived_before AND m.end_id > r.carried_before
        ORDER BY m.end_id DESC
    LOOP
        CONTINUE WHEN month.last_at < floor_at;
        months := months || month.end_id;
        -- From where on these months have a page of entries, by rows that lie before it as a whole.
        SELECT a.first_at INTO enough
        FROM (SELECT a.first_at, sum(a.lines) OVER (ORDER BY a.first_at DESC) AS lines
              FROM unnest(months) AS m (end_id), LATERAL punchcard.archive_of(m.end_id, p_account_id) a
              -- Of those that are others', too, it is not said how many are its own.
              WHERE a.first_account = a.last_account AND a.last_at < p_before_at) a
        WHERE a.lines > p_limit ORDER BY a.first_at DESC LIMIT 1;
        IF FOUND THEN
            floor_at := greatest(floor_at, enough);
        END IF;
    END LOOP;
    RETURN QUERY
    SELECT p.* FROM (
        SELECT o.at, e.job_id AS key, l.part, e.entry, l.kind, l.available, l.held,
               e.available_after - l.later AS available_after, e.held_after + l.later AS held_after, e.job_id,
               NULL::text AS idempotency_key, NULL::text AS reason, e.share, e.at AS created_at
        FROM unnest(months) AS m (end_id), LATERAL punchcard.archive_of(m.end_id, p_account_id) a,
             unnest(a.accounts, a.shares, a.entries, a.job_ids, a.prices, a.captured, a.available_after,
                    a.held_after, a.at)
                 AS e (account_id, share, entry, job_id, price, captured, available_after, held_after, at)
        CROSS JOIN LATERAL (SELECT CASE WHEN e.captured IS NULL THEN punchcard.uuid_time(e.job_id)
                                        ELSE e.at END AS at) o
        CROSS JOIN LATERAL (
            SELECT 0::smallint AS part, 'hold' AS kind, -e.price AS available, e.price AS held,
                   0::bigint AS later
            WHERE e.captured IS NULL
            UNION ALL
            SELECT 2::smallint, 'release', e.price - e.captured, e.captured - e.price, 0::bigint
            UNION ALL
            SELECT 1::smallint, 'capture', 0::bigint, -e.captured, e.price - e.captured) l
        WHERE e.account_id = p_account_id
          AND a.first_at <= p_before_at AND a.last_at >= floor_at
          AND l.held <> 0 AND o.at >= floor_at
        UNION ALL
        SELECT c.until, lpad(to_hex(c.share::integer), 32, '0')::uuid, 0::smallint, upper(c.numbers) - 1,
               'carried', c.available, c.held, c.available, c.held, NULL, NULL,
               format('%s entries, SHA-256 %s', c.entries, c.sha256), c.share, c.until
        FROM punchcard.carried c WHERE c.account_id = p_account_id AND c.until >= floor_at) p
    WHERE (p.at, p.key, p.part) < (p_before_at, p_before_key, p_before_part)
    ORDER BY p.at DESC, p.key DESC, p.part DESC LIMIT p_limit;
END $$;
