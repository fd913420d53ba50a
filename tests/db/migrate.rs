//! The migrations on servers of their own: a plain one, and one that has Supabase's roles.

use local::postgres::{Options, Postgres};
use shared::db::migrate::{MIGRATIONS, apply};
use tokio_postgres::Client;

use crate::support::connect;

const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Every object of the schema as the catalog has it: a change of any shows.
async fn catalog(client: &Client) -> String {
    let sql = "SELECT string_agg(row, ' ' ORDER BY row) FROM (
            SELECT format('%s %s', oid, xmin) AS row FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace
            UNION ALL SELECT format('%s %s', oid, xmin) FROM pg_proc WHERE pronamespace = 'punchcard'::regnamespace
            UNION ALL SELECT format('%s %s', oid, xmin) FROM pg_namespace WHERE nspname = 'punchcard'
            UNION ALL SELECT format('%s %s', name, applied_at) FROM punchcard.migrations) of_ours";
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
