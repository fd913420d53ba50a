-- drop_source: from now on credits come from grants alone, unless some of the source's are here still, or
-- even then ($1). Answers whether that is so; no row if there is no source.
WITH dropped AS (
    DELETE FROM punchcard.credit_source s
    WHERE s.only_one
      AND ($1 OR NOT EXISTS (SELECT FROM punchcard.accounts a WHERE a.available > 0 OR a.held > 0))
    RETURNING 1
)
SELECT EXISTS (SELECT FROM dropped) FROM punchcard.credit_source
