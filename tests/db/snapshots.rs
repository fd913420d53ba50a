//! Who keeps a snapshot open is named: no dead row goes meanwhile.

use crate::support::{APP, Bench, as_role, connect};

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_snapshot_or_prepared_a_transaction_is_named() {
    let bench = Bench::new().await;
    let found = async |sql: &str| -> Vec<String> {
        let client = connect(&as_role(&bench.direct_url, APP)).await;
        client.query_typed(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let sql = include_str!("../../shared/src/doctor/old_snapshots.sql");
    let reader = connect(&as_role(&bench.direct_url, APP)).await;
    let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM punchcard.kinds";
    reader.batch_execute(hold).await.unwrap();
    assert_eq!(found(sql).await, Vec::<String>::new(), "not for long yet");
    let sooner = sql.replace("10 minutes", "0 minutes");
    assert_ne!(sooner, sql);
    let named = found(&sooner).await;
    assert!(
        named.iter().any(|line| line.contains("a snapshot has been held for 0 minutes by process")),
        "{named:?}"
    );
    reader.batch_execute("ROLLBACK").await.unwrap();
    // Of another role's it is known how many transactions have begun since.
    bench.admin.batch_execute(hold).await.unwrap();
    let sooner = sql.replace("> 500000", ">= 0");
    let named = found(&sooner).await;
    bench.admin.batch_execute("ROLLBACK").await.unwrap();
    assert!(named.iter().any(|line| line.contains(" transactions by process")), "{named:?}");
}
