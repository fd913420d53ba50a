-- claim: queued -> running for up to $1 due jobs, oldest first, under a lease of at most $4 seconds.
-- Only kinds this worker serves: HTTP targets, the Rust kinds named in $2, and retired ones (to fail them);
-- only kinds whose time limit fits into the $3 seconds that the worker has left.
-- The LIMIT stands inside the ARRAY, so that no plan can join it back by a scan of the whole table.
WITH served AS MATERIALIZED (
    SELECT name FROM punchcard.kinds
    WHERE (url IS NOT NULL OR name = ANY ($2::text[]) OR retired_at IS NOT NULL) AND timeout_seconds <= $3
)
UPDATE punchcard.jobs j
SET status = 'running', attempt = j.attempt + 1, lease_token = j.lease_token + 1,
    lease_expires_at = least(clock_timestamp() + make_interval(secs => $4), j.expires_at),
    started_at = coalesce(j.started_at, clock_timestamp())
FROM punchcard.kinds k
WHERE k.name = j.kind
  AND j.id = ANY (ARRAY(
    SELECT d.id FROM punchcard.jobs d
    WHERE d.status = 'queued' AND d.run_at <= now() AND d.expires_at > now()
      AND d.kind = ANY (ARRAY(SELECT name FROM served))
    ORDER BY d.run_at, d.id
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED))
RETURNING j.id, j.lease_token, j.account_id, j.kind, j.attempt, j.max_attempts, j.input::text, k.url,
    k.secret_version, k.retired_at IS NOT NULL, k.timeout_seconds, k.backoff_seconds, k.backoff_max_seconds,
    extract(epoch FROM j.lease_expires_at - clock_timestamp())::double precision
