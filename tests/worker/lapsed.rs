//! Jobs that lapse by the thousand: they are taken back, and hold up nobody else's meanwhile.

use serde_json::json;

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_one_accounts_jobs_that_lapse_at_once_hold_up_nobody_else() {
    const LAPSED: usize = 6_500;
    let bench = Bench::new().await;
    let (loud, other) = (bench.account(0).await, bench.account(1).await);
    bench.enqueue(loud, "free", LAPSED).await;
    bench.sql("UPDATE punchcard.queue SET expires_at = now()").await;
    bench.enqueue(other, "qr.svg", 1).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["lapsed"], &summary["succeeded"]), (&json!(LAPSED), &json!(1)), "{summary}");
    let behind = format!(
        "SELECT count(*) FROM punchcard.jobs_now l WHERE l.account_id = '{loud}' AND l.status = 'failed'
         AND l.finished_at > (SELECT n.finished_at FROM punchcard.jobs_now n WHERE n.account_id = '{other}')"
    );
    let behind = bench.count(&behind).await;
    assert!(behind >= 2_000, "only {behind} were taken back after the other account's job was done");
    assert_eq!(bench.balance(other).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lapsed_jobs_that_are_refused_slowly_hold_up_nobody_elses() {
    let bench = Bench::new().await;
    let (slow, other) = (bench.account(0).await, bench.account(0).await);
    // More than a statement has the time for.
    bench.enqueue(slow, "free", 150).await;
    bench.enqueue(other, "free", 1).await;
    bench.sql("UPDATE punchcard.queue SET expires_at = now()").await;
    bench
        .sql(&format!(
            "CREATE FUNCTION public.refuse_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(0.15); RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse_slowly BEFORE INSERT ON punchcard.outcomes FOR EACH ROW
             WHEN (NEW.account_id = '{slow}') EXECUTE FUNCTION public.refuse_slowly()"
        ))
        .await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(summary["lapsed"], 1, "{summary}");
    let failed =
        format!("SELECT count(*) FROM punchcard.jobs_now WHERE account_id = '{other}' AND status = 'failed'");
    assert_eq!(bench.count(&failed).await, 1);
    bench.assert_audit_is_clean().await;
}
