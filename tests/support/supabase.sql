-- What a Supabase project has that grants and policies refer to: who is signed in, and Realtime as a stub.
CREATE SCHEMA auth;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', '')::uuid
$$;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, punchcard_migrator;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

-- Whose it is: the owner of our schema stands here for `postgres`, who installs there and may send and make
-- policies.
CREATE SCHEMA realtime;
CREATE TABLE realtime.messages (
    topic text NOT NULL, event text, payload jsonb, private boolean, id bigint GENERATED ALWAYS AS IDENTITY);
ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE realtime.messages OWNER TO punchcard_migrator;
CREATE FUNCTION realtime.topic() RETURNS text
    LANGUAGE sql STABLE AS $$ SELECT current_setting('realtime.topic', true) $$;
CREATE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true)
    RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO realtime.messages (payload, event, topic, private) VALUES ($1, $2, $3, $4);
END $$;
GRANT USAGE ON SCHEMA realtime TO anon, authenticated, service_role, punchcard_migrator;
GRANT SELECT ON realtime.messages TO anon, authenticated;
