-- busy: keeps a connection of the database for a tenth of a second, so that a pooler must give another to
-- whoever comes.
SELECT 1 FROM pg_sleep(0.1)
