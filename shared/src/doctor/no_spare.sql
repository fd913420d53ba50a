-- no_spare: tables that are kept by month and have no place for what is bought behind their last month.
SELECT format('punchcard.%s has no table for what is bought behind its months, and such a purchase is '
              'refused: `punchcard migrate` makes it, or says what is in its way', c.relname)
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relkind = 'p'
  AND NOT EXISTS (SELECT FROM punchcard.periods p WHERE p.of_table = c.relname AND p.is_spare)
