-- hidden: from whom row security hides rows that they must see, such as an owner that a restore has made.
SELECT format('row security hides the rows of %s tables from %s%s', count(*), h.hidden_from,
              CASE WHEN bool_or(h.is_owner) THEN ', their owner' ELSE '' END)
FROM punchcard.hidden h GROUP BY h.hidden_from ORDER BY h.hidden_from
