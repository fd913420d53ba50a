//! Claim and rescue read their own index, however long the history.

use shared::db::jobs::{CLAIM, RESCUE};

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn claim_and_rescue_use_their_partial_index_beside_100_000_final_rows() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    bench
        .sql(&format!(
            "INSERT INTO punchcard.jobs (id, account_id, kind, status, price, max_attempts, expires_at, finished_at, input, output)
             SELECT gen_random_uuid(), '{account}', 'free', 'succeeded', 0, 3, now() + interval '7 days', now(), '{{}}', '{{}}'
             FROM generate_series(1, 100000)"
        ))
        .await;
    bench.enqueue(account, "qr.svg", 200).await;
    bench.sql("ANALYZE punchcard.jobs").await;
    let plan = async |sql: String| {
        let rows = bench.rows(&format!("EXPLAIN {sql}")).await;
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    let bound =
        CLAIM.replace("$1", "100").replace("$2", "ARRAY['qr.svg']").replace("$3", "60").replace("$4", "60");
    let claim = plan(bound).await;
    assert!(claim.contains("jobs_due") && !claim.contains("Seq Scan on jobs"), "{claim}");
    let rescue = plan(RESCUE.replace("$1", "1000")).await;
    assert!(rescue.contains("jobs_lapse") && !rescue.contains("Seq Scan on jobs"), "{rescue}");
}
