-- apply: offers these kinds ($1) as they are described, and retires the named ($2), all or nothing.
WITH wanted AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::text::json) AS w (
        name text, price bigint, max_priority smallint, metered boolean, on_cancel punchcard.charge,
        on_input_error punchcard.charge, max_attempts integer, max_crashes integer, backoff text,
        backoff_seconds integer, backoff_max_seconds integer, backoff_delays integer[],
        jitter double precision, timeout_seconds integer, life_seconds integer, dispatch text, url text,
        cancel_url text, callback_seconds integer, secret_version integer)
), retired AS (
    UPDATE punchcard.kinds k SET retired_at = now()
    WHERE k.retired_at IS NULL AND k.name = ANY ($2)
)
INSERT INTO punchcard.kinds (name, price, max_priority, metered, on_cancel, on_input_error, max_attempts,
                             max_crashes, backoff, backoff_seconds, backoff_max_seconds, backoff_delays,
                             jitter, timeout_seconds, life_seconds, dispatch, url, cancel_url,
                             callback_seconds, secret_version)
SELECT w.name, w.price, w.max_priority, w.metered, w.on_cancel, w.on_input_error, w.max_attempts,
       w.max_crashes, w.backoff, w.backoff_seconds, w.backoff_max_seconds, w.backoff_delays, w.jitter,
       w.timeout_seconds, w.life_seconds, w.dispatch, w.url, w.cancel_url, w.callback_seconds,
       w.secret_version
FROM wanted w
ON CONFLICT (name) DO UPDATE
SET price = excluded.price, max_priority = excluded.max_priority, metered = excluded.metered,
    on_cancel = excluded.on_cancel, on_input_error = excluded.on_input_error,
    max_attempts = excluded.max_attempts, max_crashes = excluded.max_crashes, backoff = excluded.backoff,
    backoff_seconds = excluded.backoff_seconds, backoff_max_seconds = excluded.backoff_max_seconds,
    backoff_delays = excluded.backoff_delays, jitter = excluded.jitter,
    timeout_seconds = excluded.timeout_seconds, life_seconds = excluded.life_seconds,
    dispatch = excluded.dispatch, url = excluded.url, cancel_url = excluded.cancel_url,
    callback_seconds = excluded.callback_seconds, secret_version = excluded.secret_version, retired_at = NULL
