//! A database whose transactions are serializable unless they say otherwise: ours need READ COMMITTED, and say nothing.

use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use super::{doctor, empty, migrate, punchcard, remove, set};
use crate::support::{APP, Bench, OWNER, as_role, connect};

/// Keyed purchases of one account, many at a time; answers their statuses but for 202.
async fn buy(database: &Bench, account: Uuid, round: usize) -> Vec<u64> {
    let posts = (0..24).map(|n| async move {
        let body = json!({ "kind": "qr.svg", "input": { "text": "t" } });
        database.post(account, body, Some(&format!("{round} {n}"))).await.status
    });
    join_all(posts).await.into_iter().filter(|status| *status != 202).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_own_setting_goes_before_the_databases_and_the_doctor_names_it_where_it_is_missing() {
    let server = Bench::new().await;
    let database = empty(&server, OWNER, "").await;
    set(&database, "default_transaction_isolation = serializable").await;
    migrate(&database).await;
    let account = Uuid::new_v4();
    punchcard(&database, &["credits", "grant", &account.to_string(), "1000", "--key", "k"]);
    for round in 0..5 {
        assert_eq!(buy(&database, account, round).await, Vec::<u64>::new(), "all 202");
    }
    let (said, exit) = doctor(&database, APP);
    assert_eq!(exit, 0, "{said}");

    // As if the role had none, which nobody can take away here without taking it from every test.
    let missing = "default_transaction_isolation = serializable";
    database.sql(&format!("ALTER ROLE {APP} IN DATABASE {} SET {missing}", database.database)).await;
    let (said, exit) = doctor(&database, APP);
    assert_eq!(exit, 17, "{said}");
    assert!(
        said.contains("default_transaction_isolation is serializable, and must be read committed"),
        "{said}"
    );
    assert!(said.contains("punchcard roles"), "{said}");
    for (setting, found) in [
        ("row_security = off", "row_security is off, and must be on"),
        ("session_replication_role = replica", "session_replication_role is replica, and must be origin"),
        (
            "search_path = public, pg_catalog",
            "search_path is public, pg_catalog, and must be pg_catalog, pg_temp",
        ),
        ("statement_timeout = '50ms'", "statement_timeout is 50ms, and must be a second or more"),
        ("lock_timeout = '1ms'", "lock_timeout is 1ms, and must be a second or more"),
        ("transaction_timeout = '400ms'", "transaction_timeout is 400ms, and must be a second or more"),
        ("synchronous_commit = off", "synchronous_commit is off, and must be on"),
    ] {
        let name = setting.split(' ').next().unwrap();
        if database.rows(&format!("SELECT current_setting('{name}', true)")).await[0]
            .get::<_, Option<&str>>(0)
            .is_none()
        {
            eprintln!("this server knows no {name}");
            continue;
        }
        let of_role = format!("ALTER ROLE {APP} IN DATABASE {}", database.database);
        database.sql(&format!("{of_role} RESET ALL; {of_role} SET {setting}")).await;
        let (said, exit) = doctor(&database, APP);
        assert!(exit == 17 && said.contains(found), "{exit} {said}");
        database.sql(&format!("{of_role} RESET ALL")).await;
        let (said, exit) = doctor(&database, APP);
        assert_eq!(exit, 0, "{setting}: mended: {said}");
    }
    assert_eq!(punchcard(&database, &["credits", "audit"]), "audit clean\n");
    remove(&server, database).await;
}

/// What was answered is on the disk, and statements take the time they need, whatever the database sets.
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_durable_and_time_outs_the_roles_own() {
    let server = Bench::new().await;
    let database = empty(&server, OWNER, "").await;
    migrate(&database).await;
    set(&database, "synchronous_commit = off").await;
    set(&database, "lock_timeout = '1ms'").await;
    let knows = "SELECT 1 FROM pg_settings WHERE name = 'transaction_timeout'";
    if !database.rows(knows).await.is_empty() {
        set(&database, "transaction_timeout = '400ms'").await;
    }
    let in_force =
        "SELECT current_setting('synchronous_commit') || ' ' || current_setting('lock_timeout') || ' '
                        || coalesce(current_setting('transaction_timeout', true), '0')";
    for (role, settings) in [(APP, "on 10s 0"), (OWNER, "on 5s 0")] {
        let client = connect(&as_role(&database.direct_url, role)).await;
        let row = client.query_typed(in_force, &[]).await.unwrap();
        assert_eq!(row[0].get::<_, &str>(0), settings, "{role}");
    }
    // As if the role had been made by hand: what bounds nothing is named.
    let of_role = format!("ALTER ROLE {APP} IN DATABASE {}", database.database);
    for name in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        database.sql(&format!("{of_role} SET {name} = 0")).await;
        let (said, exit) = doctor(&database, APP);
        assert!(exit == 0 && said.contains(&format!("no {name} is in force")), "{said}");
        assert!(said.contains("(no_timeouts;"), "{said}");
        database.sql(&format!("{of_role} RESET {name}")).await;
    }
    let (said, exit) = doctor(&database, APP);
    assert!(exit == 0 && !said.contains("is in force"), "{said}");
    // What the whole server was told is a warning: some keep their disks otherwise.
    for name in ["fsync", "full_page_writes"] {
        let off: bool = database.rows(&format!("SELECT current_setting('{name}') = 'off'")).await[0].get(0);
        assert_eq!(said.contains(&format!("{name} is off")), off, "{said}");
    }
    remove(&server, database).await;
}
