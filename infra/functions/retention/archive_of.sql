-- The rows of the archive of a month that have entries of an account: those that begin with it, and the one
-- before these that ends with it, or behind it.
CREATE OR REPLACE FUNCTION punchcard.archive_of(p_month uuid, p_account_id uuid)
    RETURNS SETOF punchcard.archive
    LANGUAGE sql STABLE AS $$
    SELECT a.* FROM punchcard.archive a WHERE a.end_id = p_month AND a.first_account = p_account_id
    UNION ALL
    SELECT a.* FROM punchcard.archive a
    WHERE a.end_id = p_month AND a.last_account >= p_account_id
      AND a.first_account = (
          SELECT b.first_account FROM punchcard.archive b
          WHERE b.end_id = p_month AND b.first_account < p_account_id
          ORDER BY b.first_account DESC LIMIT 1)
$$;
