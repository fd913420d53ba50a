-- rows: what is wrong with rows that name a job, of the next jobs behind $1 (NULL: from the first on), some
-- $2 of each table.
SELECT invariant, subject, finding, next_after, 0::bigint FROM punchcard.audit_rows($1, $2)
