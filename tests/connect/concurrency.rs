//! Several requests at once in one environment, as on Lambda Managed Instances: a few connections, and no more.

use std::{sync::Arc, time::Duration};

use futures_util::future::{Either, join_all, select};
use shared::{
    db::{
        Db,
        jobs::{JobOptions, NewJob},
    },
    domain::Deadline,
    secrets::{SecretSource, SecretStore},
};

use crate::support::{APP, Bench, as_role, connect};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_holds_up_its_own_connection_alone() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let input = serde_json::value::to_raw_value(&serde_json::json!({"text": "t"})).unwrap();
    for (connections, held_up) in [(1, true), (4, false)] {
        let source =
            SecretSource { database_url: Some(as_role(&bench.direct_url, APP)), ..SecretSource::default() };
        let db = Db::with_connections(Arc::new(SecretStore::new(source)), connections);
        db.oldest_due(soon()).await.unwrap();
        let blocker = connect(&bench.direct_url).await;
        blocker
            .batch_execute(&format!(
                "BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE"
            ))
            .await
            .unwrap();
        let job = NewJob {
            kind: "qr.svg",
            input: &input,
            priority: 0,
            run_at: None,
            options: &JobOptions::default(),
        };
        let buyer = db.enqueue(account, job, None, soon());
        let others = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let many = join_all((0..40).map(|_| db.oldest_due(soon())));
            tokio::time::timeout(Duration::from_millis(1_500), many).await
        };
        let others = match select(Box::pin(buyer), Box::pin(others)).await {
            Either::Left(_) => panic!("bought under a lock"),
            Either::Right((others, buyer)) => {
                let of_app = "SELECT count(*) FROM pg_stat_activity
                              WHERE datname = current_database() AND usename = 'punchcard_app'";
                let open = bench.count(of_app).await;
                assert!((1..=i64::try_from(connections).unwrap()).contains(&open), "{open} connections");
                blocker.batch_execute("ROLLBACK").await.unwrap();
                buyer.await.expect("bought once the lock is gone");
                others
            }
        };
        assert_eq!(others.is_err(), held_up, "by {connections}");
    }
}
