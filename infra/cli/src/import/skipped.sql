-- skipped: why rows are left alone, whether they bear our mark from an earlier run, how many, and the first
-- ten.
SELECT reason, state IS NOT DISTINCT FROM 'taken', count(*),
       array_to_string((array_agg(source_id ORDER BY created_at, source_id))[1:10], ', ')
FROM punchcard_survey WHERE reason IS NOT NULL GROUP BY 1, 2 ORDER BY count(*) DESC, reason
