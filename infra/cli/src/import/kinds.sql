-- kinds: what would be taken over, but nobody would run.
SELECT s.kind, count(*)
FROM punchcard_survey s
WHERE s.step = 'take'
  AND NOT EXISTS (SELECT FROM punchcard.kinds k WHERE k.name = s.kind AND k.retired_at IS NULL)
GROUP BY s.kind ORDER BY count(*) DESC, s.kind
