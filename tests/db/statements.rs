//! Every statement compiles against the migrated schema, says what it is, and is few.

use serde_json::json;
use shared::db::STATEMENTS;

use crate::support::{Bench, connect};

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_prepares_and_has_its_header() {
    let bench = Bench::new().await;
    for (name, sql) in STATEMENTS {
        let verb = name.rsplit('/').next().unwrap();
        assert!(sql.starts_with(&format!("-- {verb}: ")), "{name} must begin with `-- {verb}: `");
        bench.sql(&format!("PREPARE statement AS {sql}; DEALLOCATE statement")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_counted() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    // The functions connect anew, so the setting holds for them: each logs its transactions by counting commits.
    let admin = connect(&bench.direct_url).await;
    let commits = async || {
        // Statistics arrive when a backend goes idle, at the latest a second later.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        let sql = format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{}'", bench.database());
        admin.query_typed("SELECT pg_stat_clear_snapshot()", &[]).await.unwrap();
        admin.query_typed(&sql, &[]).await.unwrap()[0].get::<_, i64>(0)
    };
    // What measuring itself commits between two readings.
    let (one, two) = (commits().await, commits().await);
    let own = two - one;

    bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "warm" } }), None).await;
    let before = commits().await;
    bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "t" } }), None).await;
    let enqueue = commits().await - before - own;
    assert!(enqueue <= 1, "an enqueue is one statement, not {enqueue}");

    let poller = bench.poller();
    poller.invoke(&json!({})).await.unwrap();
    let before = commits().await;
    poller.invoke(&json!({})).await.unwrap();
    let empty = commits().await - before - own;
    assert!(empty <= 2, "an empty tick is two statements, not {empty}");

    bench.enqueue(account, "qr.svg", 100).await;
    let before = commits().await;
    assert_eq!(poller.invoke(&json!({})).await.unwrap()["succeeded"], 100);
    let full = commits().await - before - own;
    assert!((3..=10).contains(&full), "a tick over 100 jobs is at most ten statements, not {full}");
}
