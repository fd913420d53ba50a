-- past: what would go with the next ticks, were payloads kept for $1 days, keys for $2, and money for $3
-- (NULL: for ever): each with how many there are, how many credits they moved, the first and the last day.
WITH bound AS MATERIALIZED (
    SELECT r.archived_before, r.carried_before,
           punchcard.first_id(date_trunc('month', now() - $1 * interval '1 day', 'UTC')) AS payload_end,
           punchcard.first_id(now() - $2 * interval '1 day') AS key_end,
           date_trunc('month', now() - $3 * interval '1 day', 'UTC') AS money_end
    FROM punchcard.retention r
), bought AS (
    SELECT 'jobs' AS what, count(*) AS number, sum(j.price)::bigint AS credits, min(j.created_at) AS first,
           max(j.created_at) AS last
    FROM punchcard.jobs j
    WHERE j.id >= (SELECT b.archived_before FROM bound b) AND j.id < (SELECT b.payload_end FROM bound b)
), keyed AS (
    SELECT 'idempotency keys', count(*), NULL::bigint, min(punchcard.uuid_time(k.job_id)),
           max(punchcard.uuid_time(k.job_id))
    FROM punchcard.idempotency_keys k WHERE k.job_id < (SELECT b.key_end FROM bound b)
), moved AS (
    SELECT 'entries', count(*), sum(greatest(abs(e.available_delta), abs(e.held_delta)))::bigint,
           min(e.created_at), max(e.created_at)
    FROM punchcard.entries e
    WHERE e.kind <> 'carried' AND e.created_at < (SELECT b.money_end FROM bound b)
)
SELECT w.what, w.number, w.credits, to_char(w.first AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
       to_char(w.last AT TIME ZONE 'UTC', 'YYYY-MM-DD')
FROM (SELECT * FROM bought UNION ALL SELECT * FROM keyed UNION ALL SELECT * FROM moved)
    AS w (what, number, credits, first, last)
WHERE w.number > 0
