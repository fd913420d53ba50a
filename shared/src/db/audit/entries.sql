-- entries: how many entries there are to be looked at.
SELECT coalesce(sum(a.entries), 0)::bigint FROM punchcard.accounts a
