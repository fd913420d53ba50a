-- retire: no longer offered; what is still queued fails and is released by the next tick.
UPDATE punchcard.kinds SET retired_at = now() WHERE name = $1 AND retired_at IS NULL
