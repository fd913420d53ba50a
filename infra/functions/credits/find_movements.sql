-- Of `find_entries`, what moved from outside; in the order of their time, then of their numbers.
CREATE OR REPLACE FUNCTION punchcard.find_movements(
    p_account_id uuid, p_before_at timestamptz, p_before_key uuid, p_limit bigint)
    RETURNS TABLE (at timestamptz, key uuid, part smallint, entry bigint, kind text, available bigint,
                   held bigint, available_after bigint, held_after bigint, job_id uuid, idempotency_key text,
                   reason text, share smallint, created_at timestamptz)
    LANGUAGE sql STABLE AS $$
    SELECT m.created_at AS at, m.key, 0::smallint AS part, m.entry, m.kind::text AS kind,
           m.amount AS available, 0::bigint AS held, m.available_after, m.held_after, m.job_id,
           m.idempotency_key, m.reason, m.share, m.created_at
    FROM (SELECT m.*, lpad(to_hex(m.entry * 64 + m.share), 32, '0')::uuid AS key
          FROM punchcard.movements m
          WHERE m.account_id = p_account_id AND m.created_at <= p_before_at AND m.kind <> 'shift') m
    WHERE (m.created_at, m.key) < (p_before_at, p_before_key)
    ORDER BY m.created_at DESC, m.key DESC LIMIT p_limit
$$;
