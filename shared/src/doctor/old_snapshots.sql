-- old_snapshots: who has kept a snapshot open for long: no dead row can be removed meanwhile, so that each
-- movement of a busy account takes longer than the last. Of other roles' sessions only how many transactions
-- have begun since is known to a role that may not look.
SELECT format('a snapshot has been held for %s by %s: dead rows stay meanwhile, and busy accounts get slower',
              coalesce(floor(extract(epoch FROM now() - h.since) / 60) || ' minutes',
                       h.age || ' transactions'), h.who)
FROM (SELECT format('process %s (%s)', a.pid, coalesce(a.application_name, '')) AS who, a.xact_start AS since,
             age(coalesce(a.backend_xmin, a.backend_xid)) AS age
      FROM pg_catalog.pg_stat_activity a
      WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
        AND coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL
      UNION ALL
      SELECT format('the prepared transaction %s', p.gid), p.prepared, age(p.transaction)
      FROM pg_catalog.pg_prepared_xacts p WHERE p.database = current_database()
      UNION ALL
      SELECT format('the replication slot %s, which nobody uses', s.slot_name), NULL, age(s.xmin)
      FROM pg_catalog.pg_replication_slots s WHERE s.xmin IS NOT NULL AND NOT s.active) h
WHERE h.since < now() - interval '10 minutes' OR (h.since IS NULL AND h.age > 500000)
ORDER BY h.age DESC LIMIT 5
