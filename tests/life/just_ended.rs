//! What is asked of a job in the very moment that it ends: it was there all the while, and nobody hears that it is not.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::races::{PRICE, buy, claim, track};
use crate::support::{Bench, connect};

/// A run that ends with this verdict, output and error, as SQL, while somebody who asks has looked in one place, and not yet in
/// the other. `ask` is what they ask of `JOB`, of `ACCOUNT`.
async fn asked_meanwhile(
    bench: &Bench,
    end: [&str; 3],
    ask: &str,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let lease = claim(&bench.db()).await;
    let (job, token) = (lease.job_id, lease.lease_token);
    let queue = connect(&bench.direct_url).await;
    queue.batch_execute("BEGIN; LOCK TABLE punchcard.queue IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let ask = ask.replace("JOB", &job.to_string()).replace("ACCOUNT", &lease.account_id.to_string());
    let asker: Client = connect(&bench.direct_url).await;
    let asking = tokio::spawn(async move { asker.query_typed(&ask, &[]).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while bench.count(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [verdict, output, error] = end;
    queue
        .batch_execute(&format!(
            "SELECT punchcard.settle(ARRAY['{job}']::uuid[], ARRAY[{token}]::bigint[], ARRAY['{verdict}'], ARRAY[0],
                 ARRAY[{output}]::text[], ARRAY[{error}]::text[]);
             COMMIT"
        ))
        .await
        .unwrap();
    asking.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_finds_a_job_that_is_just_succeeding() {
    let (bench, ..) = track().await;
    let account = bench.account(PRICE).await;
    buy(&bench, account).await;
    let refund = "SELECT amount FROM punchcard.refund('JOB')";
    let refunded = asked_meanwhile(&bench, ["complete", "'1'", "NULL"], refund).await.unwrap();
    assert_eq!(refunded[0].get::<_, i64>(0), PRICE);
    assert_eq!(bench.balance(account).await, (PRICE, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_a_job_that_is_just_failing() {
    let (bench, ..) = track().await;
    let account = bench.account(2 * PRICE).await;
    let job = buy(&bench, account).await;
    let failure = ["fail", "NULL", r#"'{"code":"handler_error","message":"no"}'"#];
    let retry =
        r#"SELECT job_id FROM punchcard.enqueue('ACCOUNT', 'race', p_options => '{"retry_of": "JOB"}')"#;
    asked_meanwhile(&bench, failure, retry).await.unwrap();
    let retry_of = format!("SELECT count(*) FROM punchcard.jobs_now WHERE retry_of = '{job}'");
    assert_eq!(bench.count(&retry_of).await, 1);
    assert_eq!(bench.balance(account).await, (PRICE, PRICE), "released, and held once more");
    bench.assert_audit_is_clean().await;
}
