-- rows: what each row of the old table is in Punchcard: `present` if it is there already, `reason` why it
-- cannot be. A UUID is kept, since clients hold it. Of any other id one is made, the same each time; it
-- begins with the number, if it is one, so that the jobs sort as they did, and before all that are bought
-- from now on.
CREATE TEMPORARY VIEW punchcard_rows AS
SELECT r.*, r.owner IS NOT NULL AND r.owner = r.account_id AS present,
       CASE
           WHEN r.source_id IS NULL THEN 'it has no id'
           WHEN r.word IS NULL THEN 'it has no status'
           WHEN r.account_id IS NULL THEN 'its account is not a UUID'
           WHEN r.owner <> r.account_id THEN 'its id is that of another account''s job'
           WHEN r.owner = r.account_id
                AND (r.state IN ('queued', 'running') OR (r.state <> 'taken' AND r.unfinished))
               THEN 'it is in Punchcard, and its status has changed here since'
           WHEN r.owner = r.account_id OR r.state = 'running' THEN NULL
           WHEN EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = r.account_id)
               THEN 'its account is erased'
           WHEN coalesce(r.kind, '') = '' THEN 'it has no kind'
           WHEN r.input IS NULL THEN 'its input is not JSON'
           WHEN pg_temp.punchcard_flaw('input', r.input) IS NOT NULL
               THEN pg_temp.punchcard_flaw('input', r.input)
           WHEN r.key !~ E'^[\\x20-\\x7e]{1,128}$' THEN 'its key is not 1 to 128 printable ASCII characters'
           WHEN EXISTS (SELECT FROM punchcard.idempotency_keys k
                        WHERE k.account_id = r.account_id AND k.key = punchcard.key_digest(r.key))
               THEN 'its key is that of another job'
           WHEN r.state IN ('queued', 'taken') THEN
               CASE WHEN r.price IS NULL THEN 'its price is not a whole number from 0 to 1,000,000,000,000'
                    WHEN r.run_at > now() + interval '720 hours' THEN 'it waits for more than 30 days'
                    WHEN r.created_at NOT BETWEEN timestamptz 'epoch' AND now() + interval '1 day'
                        THEN 'its times are out of order' END
           WHEN r.started < r.created OR r.finished < r.started OR r.finished < r.created
               OR r.created_at < timestamptz 'epoch'
               OR greatest(r.created, r.started, r.finished) > now() + interval '1 day'
               THEN 'its times are out of order'
           ELSE pg_temp.punchcard_flaw('output', r.output)
       END AS reason
FROM (
    SELECT i.*, coalesce((SELECT q.account_id FROM punchcard.queue q WHERE q.job_id = i.job_id),
                         (SELECT f.account_id FROM punchcard.outcomes f WHERE f.job_id = i.job_id)) AS owner,
           EXISTS (SELECT FROM punchcard.queue q WHERE q.job_id = i.job_id) AS unfinished
    FROM (
        SELECT o.id, o.source_id, o.table_name, o.word, o.state, o.kind,
               CASE WHEN o.account ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN o.account::uuid END
                   AS account_id,
               CASE WHEN o.source_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN o.source_id::uuid
                    ELSE left(overlay(overlay(
                             encode(sha256(convert_to(o.table_name || ':' || o.source_id, 'UTF8')), 'hex')
                             PLACING lpad(CASE WHEN o.source_id ~ '^[0-9]{1,12}$'
                                               THEN to_hex(o.source_id::bigint)
                                               ELSE '' END, 12, '0') || '8' FROM 1 FOR 13)
                             PLACING '8' FROM 17 FOR 1), 32)::uuid
               END AS job_id,
               CASE WHEN o.input_given THEN o.input ELSE '{}' END AS input, o.input_given, o.output,
               o.error_message, o.key,
               least(10, greatest(-10, trunc(coalesce(o.priority, 0))))::smallint AS priority,
               o.priority NOT BETWEEN -10 AND 10 AS clamped,
               CASE WHEN o.price BETWEEN 0 AND 1000000000000 AND o.price = trunc(o.price)
                    THEN o.price::bigint END
                   AS price,
               o.created_at AS created, o.started_at AS started, o.finished_at AS finished, o.run_at,
               coalesce(o.created_at, o.started_at, o.finished_at, now()) AS created_at,
               coalesce(o.finished_at, o.started_at, o.created_at, now()) AS finished_at
        FROM punchcard_old o
    ) i
) r
