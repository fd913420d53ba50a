-- repeated: ids that stand in more than one row.
SELECT count(*), array_to_string((array_agg(r.id ORDER BY r.id))[1:10], ', ')
FROM (SELECT min(s.source_id) AS id FROM punchcard_survey s WHERE s.job_id IS NOT NULL
      GROUP BY s.job_id HAVING count(*) > 1) r
