-- statement: a page of an account's ($1) statement of the month that begins at $2: up to $6 entries of the
-- share $3 from the number $4 on, which are looked for near the time $5. Each row says where the shares stood
-- before and after that month, and whether it is final. Without an entry there is one row, of these two.
SELECT s.shares::text, s.is_final, s.share, s.entry, s.kind, s.available_delta, s.held_delta,
       s.available_after, s.held_after, s.job_id, s.idempotency_key, s.reason, s.created_at
FROM punchcard.find_statement($1, $2::text::timestamptz, $3::smallint, $4::bigint,
                              timestamptz 'epoch' + $5::bigint * interval '1 microsecond', $6) s
ORDER BY s.entry
