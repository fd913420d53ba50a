-- own_database: nobody but the owner and the migrator (whose import needs them) may create temporary objects
-- here.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, punchcard_app', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO punchcard_migrator', current_database());
    -- To revoke what somebody else has granted is no error to PostgreSQL.
    IF has_database_privilege('punchcard_app', current_database(), 'TEMPORARY') THEN
        RAISE EXCEPTION 'the rights in the database % are not ours to take away: run this as its owner',
            current_database() USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$
