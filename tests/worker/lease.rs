//! Fencing: a worker that lost its lease changes nothing, whatever happened meanwhile.

use std::time::Duration;

use local::scripted::{Response, ScriptedServer};
use serde_json::json;
use shared::{
    db::queue::{Capacity, Cursor},
    domain::{Deadline, Status, Verdict},
};

use crate::support::Bench;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn capacity() -> Capacity<'static> {
    let minute = Duration::from_secs(60);
    Capacity {
        limit: 10,
        named: &[],
        woken: false,
        rust_kinds: &["qr.svg"],
        http: true,
        budget: minute,
        lease: minute,
    }
}

fn complete() -> Verdict {
    Verdict::Complete { output: serde_json::value::to_raw_value(&json!({ "ok": true })).unwrap(), used: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_worker_changes_no_row() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let db = bench.db();
    let claim = async || db.claim(capacity(), &mut Cursor::default(), soon()).await;
    let lapse = "UPDATE punchcard.queue SET lease_expires_at = now() - interval '1 second' WHERE lease_expires_at IS NOT NULL";

    // Expired, and nobody has noticed yet.
    let first = claim().await.unwrap().leases.remove(0);
    bench.sql(lapse).await;
    assert!(db.settle(&[(first.clone(), complete())], soon()).await.unwrap().jobs.is_empty());
    // Taken back.
    assert_eq!(db.rescue(10, &[], soon()).await.unwrap().0.len(), 1);
    assert!(db.settle(&[(first.clone(), complete())], soon()).await.unwrap().jobs.is_empty());
    // Claimed again by another.
    let second = claim().await.unwrap().leases.remove(0);
    assert!(second.lease_token > first.lease_token);
    assert!(db.settle(&[(first.clone(), complete())], soon()).await.unwrap().jobs.is_empty());
    // Given back unstarted, which lowers the attempt but never the token, and claimed once more.
    assert_eq!(db.settle(&[(second.clone(), Verdict::Return)], soon()).await.unwrap().jobs.len(), 1);
    let third = claim().await.unwrap().leases.remove(0);
    assert_eq!((third.attempt, third.lease_token), (second.attempt, second.lease_token + 1));
    for late in [&first, &second] {
        assert!(db.settle(&[(late.clone(), complete())], soon()).await.unwrap().jobs.is_empty());
    }
    assert_eq!(bench.balance(account).await, (9, 1), "the hold is untouched by all of that");
    // The leaseholder alone settles, and once.
    assert_eq!(
        db.settle(&[(third.clone(), complete())], soon()).await.unwrap().jobs,
        [(third.job_id, Status::Succeeded)]
    );
    assert!(db.settle(&[(third, complete())], soon()).await.unwrap().jobs.is_empty());
    assert_eq!(bench.balance(account).await, (9, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_bounded_even_if_every_worker_dies() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let db = bench.db();
    for _ in 1..=3 {
        let lease = db.claim(capacity(), &mut Cursor::default(), soon()).await.unwrap().leases.remove(0);
        assert_eq!(lease.attempt, 1, "a crash is no attempt");
        bench.sql("UPDATE punchcard.queue SET lease_expires_at = now() - interval '1 second'").await;
        assert_eq!(db.rescue(10, &[], soon()).await.unwrap().0.len(), 1);
    }
    let code = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND error->>'code' = 'lease_expired'";
    assert_eq!(bench.count(code).await, 1);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_killed_in_the_middle_of_a_job_loses_nothing_and_charges_once() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(2)))
        .await
        .unwrap();
    bench.http_kind("slow", 10, &target.url("/")).await;
    bench.enqueue(account, "slow", 1).await;
    let poller = bench.poller();
    let tick = poller.start_invoke(&json!({}));
    tick.pid().await;
    while target.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tick.kill());
    tick.wait().await.unwrap_err();
    assert_eq!(bench.balance(account).await, (0, 10), "still held");
    bench.sql("UPDATE punchcard.queue SET lease_expires_at = now()").await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["rescued"], &summary["succeeded"]), (&json!(1), &json!(1)));
    assert_eq!(bench.balance(account).await, (0, 0));
    assert_eq!(target.requests().len(), 2);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_that_was_frozen_past_its_lease_wakes_and_changes_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target =
        ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(1))).await;
    let target = target.unwrap();
    bench.http_kind("slow", 10, &target.url("/")).await;
    bench.enqueue(account, "slow", 1).await;
    let frozen = bench.poller().without_timeout_kill();
    let tick = frozen.start_invoke(&json!({}));
    while target.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tick.pause());
    // Its lease runs out; ten ticks at once, as from duplicate events, find the job, and one of them runs it.
    bench.sql("UPDATE punchcard.queue SET lease_expires_at = now()").await;
    let (others, event) = (bench.poller(), json!({}));
    let ticks = futures_util::future::join_all((0..10).map(|_| others.invoke(&event))).await;
    let succeeded: u64 = ticks.iter().map(|tick| tick.as_ref().unwrap()["succeeded"].as_u64().unwrap()).sum();
    assert_eq!(succeeded, 1);
    let outcome = "SELECT finished_at::text FROM punchcard.outcomes";
    let before: String = bench.rows(outcome).await[0].get(0);
    assert!(tick.resume());
    let woken = tick.wait().await.unwrap();
    assert_eq!((&woken["claimed"], &woken["lost"], &woken["succeeded"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(bench.rows(outcome).await[0].get::<_, String>(0), before);
    assert_eq!(bench.balance(account).await, (0, 0));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'capture'").await, 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_killed_at_its_time_out_counts_a_crash_and_loses_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target =
        ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(30))).await;
    let target = target.unwrap();
    bench.http_kind("hangs", 10, &target.url("/")).await; // at most 5 s, says the kind
    bench.enqueue(account, "hangs", 1).await;
    // The function believes that it has longer than Lambda gives it: killed in the middle.
    let poller = bench.poller().timeout(Duration::from_secs(9));
    let tick = poller.start_invoke(&json!({}));
    while target.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tick.kill());
    tick.wait().await.unwrap_err();
    for _ in 0..2 {
        bench
            .sql("UPDATE punchcard.queue SET lease_expires_at = now() WHERE lease_expires_at IS NOT NULL")
            .await;
        bench.sql("UPDATE punchcard.queue SET run_at = now()").await;
        poller.invoke(&json!({})).await.unwrap();
    }
    let attempts = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND crashes = 3 AND error->>'code' = 'timed_out'";
    assert_eq!(bench.count(attempts).await, 1, "the killed one counts");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}
