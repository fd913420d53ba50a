-- apply: makes one kind what the file says; one that had been retired is offered again.
INSERT INTO punchcard.kinds (name, price, max_attempts, backoff_seconds, backoff_max_seconds, timeout_seconds,
                             life_seconds, url, secret_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (name) DO UPDATE
SET price = excluded.price, max_attempts = excluded.max_attempts, backoff_seconds = excluded.backoff_seconds,
    backoff_max_seconds = excluded.backoff_max_seconds, timeout_seconds = excluded.timeout_seconds,
    life_seconds = excluded.life_seconds, url = excluded.url, secret_version = excluded.secret_version,
    retired_at = NULL
