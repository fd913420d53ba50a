-- hidden: from whom of this role and the owner row security hides rows, and who mends it; no row when all
-- is well.
SELECT format('row security hides the rows of %s tables from %s%s', count(*), h.hidden_from,
              CASE WHEN bool_or(h.is_owner)
                   THEN ', their owner: run `punchcard migrate` as this role, which mends it or says '
                        'what to drop'
                   ELSE ': ask as their owner' END)
FROM punchcard.hidden h WHERE h.is_owner OR h.hidden_from = current_user
GROUP BY h.hidden_from ORDER BY bool_or(h.is_owner) DESC LIMIT 1
