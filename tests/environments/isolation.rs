//! A database whose transactions are serializable unless they say otherwise: ours need READ COMMITTED, and say nothing.

use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use super::{doctor, empty, migrate, punchcard, remove, set};
use crate::support::{APP, Bench, OWNER};

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
    ] {
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
