-- Who may what.

-- Service tokens: the team's own backend and payment system. Only the SHA-256 is kept; two are valid at a time
-- (the two slots), so that one can be rotated without a gap.
CREATE TABLE punchcard.service_tokens (
    name        text NOT NULL CHECK (name ~ '^[a-z0-9_.-]{1,64}$'),
    slot        smallint NOT NULL CHECK (slot IN (1, 2)),
    scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['enqueue', 'grant', 'operate']),
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, slot)
);

-- In the database: nobody by default, by name where Supabase grants by name; then the service role alone.
REVOKE ALL ON ALL TABLES IN SCHEMA punchcard FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA punchcard FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA punchcard FROM %I', role);
            EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA punchcard FROM %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'service_role') THEN
        GRANT USAGE ON SCHEMA punchcard TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.enqueue(uuid, text, json, text, integer, timestamptz) TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.enqueue_batch(uuid, json, text) TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.grant_credits(uuid, bigint, text, text) TO service_role;
        GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits(uuid, bigint, text, uuid, text) TO service_role;
    END IF;
END $$;
