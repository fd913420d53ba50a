-- analyze: nobody else does for a temporary table, and a batch would be thought as long as the table.
ANALYZE punchcard_survey
