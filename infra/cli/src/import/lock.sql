-- lock: one import at a time: another's marks would be taken before their pause is over.
SELECT 1 FROM (SELECT pg_advisory_lock(hashtext('punchcard import'))) AS locked
