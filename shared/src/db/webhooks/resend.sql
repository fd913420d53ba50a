-- resend: a message is due again now, whatever became of it.
WITH sooner AS (
    UPDATE punchcard.outbox b SET next_at = now() WHERE b.id = $1
      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = b.account_id)
    RETURNING b.id
), over AS (
    DELETE FROM punchcard.deliveries d
    -- What goes with its month is not sent again: its result would have no place.
    WHERE d.id = $1 AND NOT EXISTS (SELECT FROM punchcard.archived_months m WHERE m.end_id > d.job_id)
      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = d.account_id)
    RETURNING d.*
), again AS (
    INSERT INTO punchcard.outbox (id, account_id, job_id, next_at, created_at, event, attempt, settled,
                                  put_back, url, error)
    SELECT o.id, o.account_id, o.job_id, now(), o.created_at, o.event, o.attempt, o.attempt, o.put_back,
           o.url, o.error
    FROM over o
    RETURNING id
)
SELECT s.id FROM sooner s UNION ALL SELECT a.id FROM again a
