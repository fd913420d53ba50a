//! The migrations on servers of their own: a plain one, and one that has Supabase's roles.

use local::postgres::{Options, Postgres};
use shared::db::{migrate::apply, schema::MIGRATIONS};
use tokio_postgres::Client;

use crate::support::connect;

const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Every object of the schema as the catalog has it: a change of any shows.
async fn catalog(client: &Client) -> String {
    let sql = "SELECT string_agg(row, ' ' ORDER BY row) FROM (
            SELECT format('%s %s', oid, xmin) AS row FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace
            UNION ALL SELECT format('%s %s', oid, xmin) FROM pg_proc WHERE pronamespace = 'punchcard'::regnamespace
            UNION ALL SELECT format('%s %s', oid, xmin) FROM pg_namespace WHERE nspname = 'punchcard'
            UNION ALL SELECT format('%s %s', name, applied_at) FROM punchcard.migrations
            UNION ALL SELECT format('%s %s', name, applied_at) FROM punchcard.functions) of_ours";
    client.query_typed(sql, &[]).await.unwrap()[0].get(0)
}

/// Who but the owner may call `enqueue`: the grants as they are written, and as they are judged.
async fn callers(client: &Client) -> Vec<String> {
    let sql = "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\\_%'
        AND has_schema_privilege(oid, 'punchcard', 'USAGE')
        AND has_function_privilege(oid, 'punchcard.enqueue(uuid, text, json, text, integer, timestamptz, jsonb)', 'EXECUTE') ORDER BY rolname";
    client.query_typed(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_apply_on_a_plain_server_and_on_one_with_the_roles_of_supabase_and_once() {
    let server = Postgres::start_embedded(Options::default()).expect("a server");
    let admin = connect(&server.url("postgres")).await;
    let roles = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY (string_to_array('anon authenticated service_role', ' '))";
    assert!(admin.query_typed(roles, &[]).await.unwrap().is_empty(), "a plain server");
    for (database, callers_expected) in [
        ("plain", vec!["punchcard_app"]),
        // Signed-in users as Supabase has them, and none of its other roles.
        ("half", vec!["punchcard_app"]),
        ("supabase", vec!["punchcard_app", "service_role"]),
    ] {
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let url = server.url(database);
        if database == "half" {
            let users = "CREATE ROLE authenticated NOLOGIN; CREATE SCHEMA auth;
                 CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'";
            connect(&url).await.batch_execute(users).await.unwrap();
        } else if database == "supabase" {
            let missing = ROLES.iter().filter(|role| **role != "authenticated");
            let create: String = missing.map(|role| format!("CREATE ROLE {role} NOLOGIN;")).collect();
            admin.batch_execute(&create).await.unwrap();
        }
        let applied = apply(&url).await.expect("migrations");
        assert!(applied.iter().eq(MIGRATIONS.iter()), "{database}: {applied:?}");
        let client = connect(&url).await;
        assert_eq!(callers(&client).await, callers_expected, "{database}");
        let set = "SELECT rolconfig FROM pg_roles WHERE rolname = 'punchcard_app'";
        let set: Vec<String> = client.query_typed(set, &[]).await.unwrap()[0].get(0);
        for needed in ["default_transaction_isolation=read committed", "synchronous_commit=on"] {
            assert!(set.iter().any(|it| it == needed), "{database}: {set:?}");
        }
        let before = catalog(&client).await;
        assert!(apply(&url).await.expect("nothing to do").is_empty(), "{database}");
        assert_eq!(catalog(&client).await, before, "{database}: applied twice is applied once");
        // And it works: a grant, a purchase, the audit.
        let buy = "INSERT INTO punchcard.kinds (name, price) VALUES ('a', 2);
             SELECT punchcard.grant_credits('00000000-0000-0000-0000-000000000001', 10, 'start');
             SELECT punchcard.enqueue('00000000-0000-0000-0000-000000000001', 'a')";
        client.batch_execute(buy).await.expect("a purchase");
        let held = client.query_typed("SELECT available, held FROM punchcard.balances", &[]).await.unwrap();
        assert_eq!((held[0].get::<_, i64>(0), held[0].get::<_, i64>(1)), (8, 2), "{database}");
        let findings = client.query_typed("SELECT invariant FROM punchcard.audit", &[]).await.unwrap();
        assert!(findings.is_empty(), "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_differs_is_applied_again_and_keeps_its_grants_and_all_has_a_comment() {
    let server = Postgres::start_embedded(Options::default()).expect("a server");
    let url = server.url("postgres");
    apply(&url).await.expect("migrations");
    let client = connect(&url).await;
    let spoil =
        "CREATE OR REPLACE FUNCTION punchcard.uuid_v7(p_at timestamptz DEFAULT clock_timestamp()) RETURNS uuid
             LANGUAGE sql AS 'SELECT NULL::uuid';
         UPDATE punchcard.functions SET sha256 = 'another' WHERE name IN ('uuid_v7', 'enqueue')";
    client.batch_execute(spoil).await.unwrap();
    let before = callers(&client).await;
    let secrets = shared::secrets::Secrets { database_url: url.clone(), ..Default::default() };
    let migrated = shared::db::migrate::apply_as(&secrets).await.unwrap();
    assert_eq!((migrated.applied.len(), migrated.functions, migrated.renewed), (0, 2, false));
    let id = client.query_typed("SELECT punchcard.uuid_v7() IS NOT NULL AS made", &[]).await.unwrap();
    assert!(id[0].get::<_, bool>("made"));
    assert_eq!(callers(&client).await, before);
    let silent = "SELECT p.proname::text AS name FROM pg_proc p WHERE p.pronamespace = 'punchcard'::regnamespace
            AND coalesce(length(obj_description(p.oid, 'pg_proc')), 0) < 10
        UNION ALL SELECT c.relname::text FROM pg_class c
        WHERE c.relnamespace = 'punchcard'::regnamespace
            AND (c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition OR (c.relkind IN ('i', 'I') AND NOT c.relispartition AND NOT EXISTS (
                SELECT FROM pg_constraint o WHERE o.conindid = c.oid)))
            AND (c.relname <> 'audit' AND coalesce(length(obj_description(c.oid, 'pg_class')), 0) < 10)
        UNION ALL SELECT format('%s.%s', c.relname, a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0
            AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL SELECT t.typname::text FROM pg_type t WHERE t.typnamespace = 'punchcard'::regnamespace AND t.typtype = 'e'
            AND obj_description(t.oid, 'pg_type') IS NULL";
    let silent = client.query_typed(silent, &[]).await.unwrap();
    let silent: Vec<String> = silent.iter().map(|row| row.get("name")).collect();
    assert!(silent.is_empty(), "no comment says what these are: {silent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_edition_is_refused_with_the_reason() {
    let server = Postgres::start_embedded(Options::default()).expect("a server");
    let url = server.url("postgres");
    let client = connect(&url).await;
    let first = "CREATE SCHEMA punchcard;
         CREATE TABLE punchcard.migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO punchcard.migrations (name) VALUES ('0001_credits')";
    client.batch_execute(first).await.unwrap();
    let why = apply(&url).await.unwrap_err().to_string();
    assert!(why.contains("first edition") && why.contains("RENAME TO"), "{why}");
    let made = "SELECT count(*) AS made FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace AND relkind = 'r'";
    assert_eq!(client.query_typed(made, &[]).await.unwrap()[0].get::<_, i64>("made"), 1, "nothing was made");
    client.batch_execute("ALTER SCHEMA punchcard RENAME TO punchcard_first").await.unwrap();
    apply(&url).await.expect("beside it");
}

/// A migration that has to wait for a reader's lock must not make everybody wait behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_stops_no_traffic_and_is_named() {
    let server = Postgres::start_embedded(Options::default()).expect("a server");
    let url = server.url("postgres");
    apply(&url).await.expect("migrations");
    let (admin, reader, buyer) = (connect(&url).await, connect(&url).await, connect(&url).await);
    let kind = "INSERT INTO punchcard.kinds (name, price) VALUES ('a', 0);
         ALTER TABLE punchcard.queue NO FORCE ROW LEVEL SECURITY; UPDATE punchcard.functions SET sha256 = 'another'";
    admin.batch_execute(kind).await.unwrap();
    // To force it again takes the table for itself alone.
    reader.batch_execute("BEGIN; SELECT count(*) AS the_reader FROM punchcard.queue").await.unwrap();
    let running = tokio::spawn(async move { apply(&url).await });
    let began = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    while !running.is_finished() {
        let asked = std::time::Instant::now();
        let buy = "SELECT punchcard.enqueue('00000000-0000-0000-0000-000000000001', 'a')";
        buyer.batch_execute(buy).await.expect("a purchase");
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let why = running.await.unwrap().unwrap_err().to_string();
    assert!(why.contains("the_reader") && why.contains("process "), "{why}");
    assert!(began.elapsed().as_secs() >= 10 && slowest.as_secs() < 8, "{slowest:?}");
    reader.batch_execute("COMMIT").await.unwrap();
}
