-- past: what would go with the next ticks, were payloads kept for $1 days, keys for $2, and money for $3
-- (NULL: for ever), all of it by whole months, as they have tables: each with how
-- many there are, how many credits they moved, the first and the last day.
WITH months AS MATERIALIZED (
    SELECT p.end_id
    FROM (SELECT lead(p.first_id) OVER (ORDER BY p.first_id NULLS FIRST) AS end_id, p.is_spare
          FROM punchcard.periods p WHERE p.of_table = 'jobs') p
    WHERE p.end_id IS NOT NULL AND NOT p.is_spare
    UNION ALL
    SELECT m.end_id FROM punchcard.archived_months m
), bound AS MATERIALIZED (
    SELECT r.archived_before, coalesce(e.payload_end, r.archived_before) AS payload_end,
           punchcard.first_id(now() - $2 * interval '1 day') AS key_end, e.money_id,
           punchcard.uuid_time(e.money_id) AS money_end
    FROM punchcard.retention r, (
        SELECT (max(m.end_id::text) FILTER (WHERE m.end_id <= d.payload))::uuid AS payload_end,
               (max(m.end_id::text) FILTER (WHERE m.end_id <= d.money))::uuid AS money_id
        FROM months m, (SELECT punchcard.first_id(now() - $1 * interval '1 day') AS payload,
                               punchcard.first_id(now() - $3 * interval '1 day') AS money) d) e
), bought AS (
    SELECT 'jobs' AS what, count(*) AS number, sum(j.price)::bigint AS credits, min(j.created_at) AS first,
           max(j.created_at) AS last
    FROM punchcard.jobs j
    WHERE j.id >= (SELECT b.archived_before FROM bound b) AND j.id < (SELECT b.payload_end FROM bound b)
), keyed AS (
    SELECT 'idempotency keys', count(*), NULL::bigint, min(punchcard.uuid_time(k.job_id)),
           max(punchcard.uuid_time(k.job_id))
    FROM punchcard.idempotency_keys k
    WHERE coalesce(k.last_job_id, k.job_id)
          < (SELECT least(b.key_end, greatest(b.archived_before, b.payload_end)) FROM bound b)
), moved AS (
    SELECT 'entries', count(*), sum(greatest(abs(e.available_delta), abs(e.held_delta)))::bigint,
           min(e.created_at), max(e.created_at)
    FROM punchcard.entries e
    WHERE $3::integer IS NOT NULL AND e.kind <> 'carried'
      -- What a job moved goes with its job, whenever that ended.
      AND (e.job_id IS NULL OR e.job_id < (SELECT b.money_id FROM bound b))
      AND (e.kind IN ('hold', 'capture', 'release') OR e.created_at < (SELECT b.money_end FROM bound b))
)
SELECT w.what, w.number, w.credits, to_char(w.first AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
       to_char(w.last AT TIME ZONE 'UTC', 'YYYY-MM-DD')
FROM (SELECT * FROM bought UNION ALL SELECT * FROM keyed UNION ALL SELECT * FROM moved)
    AS w (what, number, credits, first, last)
WHERE w.number > 0
