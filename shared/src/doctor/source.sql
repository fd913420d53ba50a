-- source: whether the team's own credits, if they are drawn from, are there.
SELECT ok, finding FROM punchcard.source_health()
