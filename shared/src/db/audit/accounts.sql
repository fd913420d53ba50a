-- accounts: what is wrong with the next accounts behind $1 (NULL: from the first on), with some $2 entries.
SELECT invariant, subject, finding, next_after, entries FROM punchcard.audit_accounts($1, $2)
