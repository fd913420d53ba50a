-- apply: makes the kinds what the file says, all or nothing: those it names are offered, the others retired.
WITH wanted AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::text::json) AS w (
        name text, price bigint, max_attempts integer, backoff_seconds integer, backoff_max_seconds integer,
        timeout_seconds integer, life_seconds integer, url text, secret_version integer,
        dispatch text)
), retired AS (
    UPDATE punchcard.kinds k SET retired_at = now()
    WHERE k.retired_at IS NULL AND NOT EXISTS (SELECT FROM wanted w WHERE w.name = k.name)
)
INSERT INTO punchcard.kinds (name, price, max_attempts, backoff_seconds, backoff_max_seconds, timeout_seconds,
                             life_seconds, url, secret_version, dispatch)
SELECT w.name, w.price, w.max_attempts, w.backoff_seconds, w.backoff_max_seconds, w.timeout_seconds,
       w.life_seconds, w.url, w.secret_version, w.dispatch
FROM wanted w
ON CONFLICT (name) DO UPDATE
SET price = excluded.price, max_attempts = excluded.max_attempts, backoff_seconds = excluded.backoff_seconds,
    backoff_max_seconds = excluded.backoff_max_seconds, timeout_seconds = excluded.timeout_seconds,
    life_seconds = excluded.life_seconds, url = excluded.url, secret_version = excluded.secret_version, dispatch = excluded.dispatch,
    retired_at = NULL
