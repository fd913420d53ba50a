-- words: the status words of the old table, what each means (NULL: nobody knows), and how often it stands
-- there.
SELECT word, state, count(*) FROM punchcard_survey WHERE word IS NOT NULL
GROUP BY word, state ORDER BY count(*) DESC, word
