-- unsafe_storage: what the server was told not to do for its disk: worth a warning.
SELECT format('%s is off', s.name)
FROM (VALUES ('fsync'), ('full_page_writes')) AS s (name)
WHERE current_setting(s.name) = 'off'
