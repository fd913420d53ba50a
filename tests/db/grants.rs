//! Under Supabase's default privileges (and worse: ours in the tests are for every schema), nobody reaches what is not
//! theirs.

use serde_json::value::RawValue;
use shared::{
    db::queue::{Capacity, Cursor},
    domain::Verdict,
};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{APP, Bench, OWNER, as_role, connect};

/// What anon and a signed-in user try: to mint, read, alter, truncate or shadow. `{a}` is somebody else's account.
const ATTEMPTS: [&str; 34] = [
    // mint
    "SELECT punchcard.increment_user_credits('{a}', 1000000, 'mint')",
    "SELECT punchcard.grant_credits('{a}', 1000000, 'mint')",
    "SELECT punchcard.move_credits('grant', '{a}', 1000000, 'mint', NULL, NULL)",
    "SELECT punchcard.enqueue('{a}', 'free')",
    "SELECT punchcard.enqueue_batch('{a}', '[{\"kind\":\"free\"}]')",
    "SELECT punchcard.spread_account('{a}', 2)",
    "SELECT punchcard.deal_credits('{a}', 1, 0, 0)",
    "SELECT punchcard.return_credits()",
    "SELECT punchcard.use_credit_source('public.t', 'a', 'b')",
    "SELECT punchcard.settle('{}', '{}', '{}', '{}', '{}', '{}')",
    "SELECT * FROM punchcard.claim(1, '{}', true, 60, 60)",
    "INSERT INTO punchcard.accounts (id, available) VALUES (gen_random_uuid(), 1000000)",
    "INSERT INTO punchcard.movements (account_id, share, entry, kind, amount, available_after, held_after, idempotency_key)
         VALUES ('{a}', 0, 2, 'grant', 9, 9, 0, 'mint')",
    "INSERT INTO punchcard_api.credits (account_id, available, held) VALUES ('{a}', 9, 9)",
    // read
    "SELECT * FROM punchcard.accounts",
    "SELECT id, available FROM punchcard.accounts",
    "SELECT * FROM punchcard.jobs_now",
    "SELECT * FROM punchcard.audit",
    "SELECT sha256 FROM punchcard.service_tokens",
    "SELECT punchcard.balance('{a}')",
    "COPY punchcard.movements TO STDOUT",
    "SELECT key FROM punchcard.idempotency_keys",
    // alter
    "UPDATE punchcard.accounts SET available = 1000000",
    "UPDATE punchcard_api.jobs SET price = 0",
    "DELETE FROM punchcard.queue",
    "ALTER TABLE punchcard.accounts DISABLE ROW LEVEL SECURITY",
    "DROP VIEW punchcard_api.jobs",
    "LOCK TABLE punchcard.queue IN ACCESS EXCLUSIVE MODE",
    "CREATE TRIGGER t BEFORE INSERT ON punchcard.movements FOR EACH ROW EXECUTE FUNCTION punchcard.refuse_change('x')",
    "GRANT punchcard_app TO CURRENT_USER",
    // truncate
    "TRUNCATE punchcard.movements",
    "TRUNCATE punchcard_api.jobs",
    // shadow
    "CREATE FUNCTION punchcard.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
    "CREATE TABLE punchcard_api.accounts (id uuid)",
];

/// Runs something as a role of the Data API, signed in as `user`, and rolls it back.
async fn as_caller(
    bench: &Bench,
    role: &str,
    user: Uuid,
    sql: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let claims = format!(r#"{{"sub":"{user}","role":"{role}"}}"#);
    let sql = format!("BEGIN; SET LOCAL request.jwt.claims = '{claims}'; SET LOCAL ROLE {role}; {sql}");
    let answer = bench.admin.simple_query(&sql).await;
    bench.sql("ROLLBACK").await;
    let rows = answer?.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(rows.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn anon_and_signed_in_users_reach_nothing_that_is_not_theirs() {
    let bench = Bench::new().await;
    let (own, other) = (bench.account(10).await, bench.account(10).await);
    bench.enqueue(other, "qr.svg", 1).await;
    // As it is, and once somebody has opened the schema by hand: then each table and function still keeps its own.
    let opened = "RESET ROLE; GRANT USAGE ON SCHEMA punchcard TO anon, authenticated; SET LOCAL ROLE";
    for (role, before) in [("anon", ""), ("authenticated", ""), ("anon", opened), ("authenticated", opened)] {
        for attempt in ATTEMPTS {
            let attempt = attempt.replace("{a}", &other.to_string());
            let attempt = if before.is_empty() { attempt } else { format!("{before} {role}; {attempt}") };
            if attempt.contains("SELECT id, available") && role == "authenticated" && !before.is_empty() {
                // What the view reads by: one's own row, and no other.
                let rows = as_caller(&bench, role, own, &attempt).await.expect(&attempt);
                assert_eq!(rows, [own.to_string()], "row security");
                continue;
            }
            let error = as_caller(&bench, role, own, &attempt).await.expect_err(&attempt);
            // 42501: not allowed; 0A000, 55000: a view that takes no change at all; 42809: not a table.
            let code = error.code().map(|code| code.code()).unwrap_or_default();
            let refused = ["42501", "0A000", "55000", "42809"].contains(&code);
            assert!(refused, "{role}: {attempt}: {error:?}");
        }
    }
    bench.assert_audit_is_clean().await;
    let function = "SELECT count(*) FROM pg_proc p, pg_roles r
        WHERE p.pronamespace = 'punchcard'::regnamespace AND r.rolname IN ('anon', 'authenticated')
          AND has_function_privilege(r.oid, p.oid, 'EXECUTE')";
    assert_eq!(bench.count(function).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_views_show_ones_own_rows_and_nobody_elses() {
    let bench = Bench::new().await;
    let (one, two) = (bench.account(10).await, bench.account(20).await);
    bench.enqueue(one, "qr.svg", 2).await;
    bench.enqueue(two, "qr.svg", 3).await;
    bench.poller().invoke(&serde_json::json!({})).await.expect("a tick");
    bench.enqueue(two, "qr.svg", 1).await;
    let jobs = "SELECT status FROM punchcard_api.jobs ORDER BY id";
    assert_eq!(as_caller(&bench, "authenticated", one, jobs).await.unwrap(), ["succeeded", "succeeded"]);
    let of_two = as_caller(&bench, "authenticated", two, jobs).await.unwrap();
    assert_eq!(of_two, ["succeeded", "succeeded", "succeeded", "queued"]);
    let credits = "SELECT available || ' ' || held FROM punchcard_api.credits";
    assert_eq!(as_caller(&bench, "authenticated", one, credits).await.unwrap(), ["8 0"]);
    assert_eq!(as_caller(&bench, "authenticated", two, credits).await.unwrap(), ["16 1"]);
    assert!(as_caller(&bench, "authenticated", Uuid::new_v4(), jobs).await.unwrap().is_empty());
    let found = "SELECT j ->> 'status' FROM json_array_elements(punchcard_api.find_jobs() -> 'data') j";
    assert_eq!(as_caller(&bench, "authenticated", one, found).await.unwrap(), ["succeeded", "succeeded"]);
    let of_two = as_caller(&bench, "authenticated", two, found).await.unwrap();
    assert_eq!(of_two, ["queued", "succeeded", "succeeded", "succeeded"]);
    assert!(as_caller(&bench, "authenticated", Uuid::new_v4(), found).await.unwrap().is_empty());
    let nobody = format!("SET LOCAL request.jwt.claims = ''; {found}");
    assert!(as_caller(&bench, "authenticated", one, &nobody).await.unwrap().is_empty());
    for view in [jobs, credits, found] {
        assert!(as_caller(&bench, "anon", one, view).await.is_err(), "{view}");
    }
    // A temporary table of the same name shadows nothing.
    bench.allow_temporary("authenticated").await;
    let shadowed = format!(
        "CREATE TEMPORARY TABLE accounts (id uuid, share int, available bigint, held bigint);
         INSERT INTO accounts VALUES ('{one}', 0, 1000000, 0); {credits}"
    );
    assert_eq!(as_caller(&bench, "authenticated", one, &shadowed).await.unwrap(), ["8 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_role_calls_the_four_functions_and_shadows_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.allow_temporary("service_role").await;
    let sql = format!(
        "CREATE TEMPORARY TABLE accounts (id uuid, share int, spread int, available bigint, held bigint);
         INSERT INTO accounts VALUES ('{account}', 0, 1, 1000000, 0);
         SELECT punchcard.increment_user_credits('{account}', -11, 'overdraft')"
    );
    let error = as_caller(&bench, "service_role", account, &sql).await.expect_err("an overdraft");
    assert_eq!(error.code().map(|code| code.code()), Some("PT402"));
    let correct = format!("SELECT punchcard.increment_user_credits('{account}', 5, 'ok')");
    assert_eq!(as_caller(&bench, "service_role", account, &correct).await.unwrap(), ["15"]);
    for denied in ["SELECT * FROM punchcard.accounts", "SELECT * FROM punchcard.claim(1, '{}', true, 60, 60)"]
    {
        assert!(as_caller(&bench, "service_role", account, denied).await.is_err(), "{denied}");
    }
}

/// The functions' role reads, and writes by functions alone; its time-outs are in force behind a pooler too.
#[tokio::test(flavor = "multi_thread")]
async fn the_functions_role_writes_through_functions_alone() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let app: Client = connect(&as_role(&bench.url, APP)).await;
    for sql in [
        "UPDATE punchcard.accounts SET available = 1000000".to_owned(),
        "DELETE FROM punchcard.queue".into(),
        "TRUNCATE punchcard.movements".into(),
        format!("SELECT punchcard.increment_user_credits('{account}', 5, 'k')"),
        "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256) VALUES ('x', 1, '{grant}', sha256('x'))".into(),
        "UPDATE punchcard.kinds SET price = 0".into(),
        "CREATE TABLE punchcard.mine (id int)".into(),
    ] {
        let error = app.batch_execute(&sql).await.expect_err(&sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}");
    }
    let settings =
        "SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout') || ' ' ||
        current_setting('idle_in_transaction_session_timeout') || ' ' || current_setting('search_path') || ' ' ||
        current_setting('default_transaction_isolation') || ' ' || current_setting('jit')";
    let row = app.query_typed(settings, &[]).await.unwrap().remove(0);
    assert_eq!(row.get::<_, String>(0), "15s 10s 10s pg_catalog, pg_temp read committed off");
}

/// A migration file of Supabase's: applied by its own tool, and known to ours.
#[tokio::test(flavor = "multi_thread")]
async fn what_print_supabase_prints_is_the_same_schema() {
    let bench = Bench::new().await;
    let name = format!("{}_s", bench.database);
    bench.sql(&format!("CREATE DATABASE {name} OWNER {OWNER}")).await;
    let url = format!("{}/{name}", bench.direct_url.rsplit_once('/').unwrap().0);
    connect(&url).await.batch_execute(include_str!("../support/supabase.sql")).await.unwrap();
    let owner = as_role(&url, OWNER);
    let printed = shared::db::migrate::as_one_file(None).unwrap();
    connect(&owner).await.batch_execute(&printed).await.expect("it applies");
    assert!(shared::db::migrate::apply(&owner).await.unwrap().is_empty(), "nothing is left to apply");
    let schema = "SELECT string_agg(x, E'\\n' ORDER BY x) FROM (
        SELECT p.oid::regprocedure || coalesce(p.proacl::text, '') || md5(p.prosrc) AS x FROM pg_proc p
        WHERE p.pronamespace = 'punchcard'::regnamespace
        UNION ALL SELECT c.relname || c.relrowsecurity || c.relforcerowsecurity || coalesce(c.relacl::text, '')
        FROM pg_class c WHERE c.relnamespace IN ('punchcard'::regnamespace, 'punchcard_api'::regnamespace)
        UNION ALL SELECT tablename || policyname || roles::text || coalesce(qual, '') FROM pg_policies
        WHERE schemaname = 'punchcard') s";
    let theirs: String = connect(&url).await.query_typed(schema, &[]).await.unwrap()[0].get(0);
    let ours: String = bench.rows(schema).await[0].get(0);
    // The template's default privileges are harsher; what was granted by them is gone in both.
    assert_eq!(theirs, ours);
    let functions = shared::db::migrate::as_one_file(Some("0004_roles")).unwrap();
    assert!(functions.contains("FUNCTION punchcard.claim(") && !functions.contains("CREATE VIEW"));
    assert!(shared::db::migrate::as_one_file(Some("nope")).unwrap_err().contains("0004_roles"));
    bench.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn realtime_hears_of_the_owners_jobs_once_it_is_turned_on_and_never_holds_them_up() {
    let bench = Bench::new().await;
    let (one, two) = (bench.account(10).await, bench.account(10).await);
    let messages = "SELECT count(*) FROM realtime.messages";
    bench.enqueue(one, "qr.svg", 1).await;
    bench.drain().await;
    assert_eq!(bench.count(messages).await, 0, "off by default");
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    owner.batch_execute("SELECT punchcard.set_realtime(true)").await.unwrap();
    bench.enqueue(one, "qr.svg", 2).await;
    bench.enqueue(two, "qr.svg", 1).await;
    bench.drain().await;
    assert_eq!(bench.count(messages).await, 3);
    let own = format!(
        "SET LOCAL realtime.topic = 'punchcard:{one}'; SELECT event FROM realtime.messages WHERE topic = 'punchcard:{one}'"
    );
    assert_eq!(
        as_caller(&bench, "authenticated", one, &own).await.unwrap(),
        ["job.succeeded", "job.succeeded"]
    );
    assert!(
        as_caller(&bench, "authenticated", two, &own).await.unwrap().is_empty(),
        "somebody else's channel"
    );
    bench.sql("ALTER TABLE realtime.messages RENAME TO out_of_order").await;
    bench.enqueue(one, "qr.svg", 1).await;
    bench.drain().await;
    bench.sql("ALTER TABLE realtime.out_of_order RENAME TO messages").await;
    assert_eq!(bench.count(messages).await, 3, "a failure to send is no failure of the job");

    // A lock that each message would wait for.
    bench.enqueue(two, "qr.svg", 9).await;
    let db = bench.db();
    let minute = std::time::Duration::from_secs(60);
    let capacity = Capacity {
        limit: 9,
        named: &[],
        woken: false,
        rust_kinds: &["qr.svg"],
        http: false,
        budget: minute,
        lease: minute,
    };
    let deadline = shared::domain::Deadline::after(minute);
    let leases = db.claim(capacity, &mut Cursor::default(), deadline).await.unwrap().leases;
    assert_eq!(leases.len(), 9);
    let verdicts: Vec<_> = leases
        .into_iter()
        .map(|lease| (lease, Verdict::Complete { output: RawValue::NULL.to_owned(), used: None }))
        .collect();
    owner.batch_execute("BEGIN; LOCK TABLE realtime.messages").await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(db.settle(&verdicts, deadline).await.unwrap().jobs.len(), 9);
    assert!(
        begun.elapsed() < std::time::Duration::from_millis(1_500),
        "{:?}: nine times 200 ms",
        begun.elapsed()
    );
    owner.batch_execute("ROLLBACK").await.unwrap();

    owner.batch_execute("SELECT punchcard.set_realtime(false)").await.unwrap();
    bench.assert_audit_is_clean().await;
}
