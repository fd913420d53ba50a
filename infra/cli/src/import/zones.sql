-- zones: the time zones that are set here, other than UTC by any of its names: this session's, and those of
-- roles that write the old table ($1).
SELECT DISTINCT z.zone
FROM (SELECT current_setting('TimeZone') AS zone
      UNION ALL
      SELECT substr(c, length('TimeZone=') + 1)
      FROM pg_db_role_setting s
      LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
      WHERE lower(c COLLATE "C") LIKE 'timezone=%'
        AND (s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
             OR s.setdatabase = 0 AND has_table_privilege(r.oid, to_regclass($1), 'INSERT, UPDATE'))) z
WHERE lower(z.zone COLLATE "C") !~ '^(etc/)?(utc|uct|gmt|gmt[-+]?0|zulu|universal|greenwich)$'
ORDER BY z.zone
