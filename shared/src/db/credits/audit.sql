-- audit: everything that must never be; no row when all is well.
SELECT invariant, subject, finding FROM punchcard.audit
