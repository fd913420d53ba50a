-- account: what there is of an account beside its jobs and entries; no row if it is not there.
SELECT a.created_at, b.available, b.held, c.unfinished_jobs, c.unfinished_bytes, c.enqueues_per_minute,
       w.url, w.events, a.jobs, a.shares,
       (SELECT e.asked_at FROM punchcard.erasures e WHERE e.account_id = $1)
FROM (SELECT min(a.created_at) AS created_at, sum(a.unfinished_jobs)::bigint AS jobs, min(a.spread) AS shares
      FROM punchcard.accounts a WHERE a.id = $1 HAVING count(*) > 0) a
LEFT JOIN punchcard.balances b ON b.account_id = $1
LEFT JOIN punchcard.limits c ON c.account_id = $1
LEFT JOIN punchcard.webhooks w ON w.account_id = $1
