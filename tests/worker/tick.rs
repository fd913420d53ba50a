//! A scheduled run of the poller.

use std::{collections::HashSet, time::Duration};

use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;

use crate::support::{
    Bench, binary, environment,
    wire::{Fault, Wire},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_its_price_is_captured() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let job = bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "hello" } }), None).await;
    let summary = bench.poller().invoke(&json!({ "source": "aws.scheduler" })).await.unwrap();
    assert_eq!((&summary["claimed"], &summary["succeeded"]), (&json!(1), &json!(1)), "{summary}");
    let path = format!("/api/jobs/{}", job.body["id"].as_str().unwrap());
    let done = bench.get(account, &path).await.body;
    assert_eq!(done["status"], "succeeded");
    assert!(done["output"]["svg"].as_str().unwrap().contains("<svg"));
    assert_eq!(bench.balance(account).await, (9, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_error_fails_the_job_and_releases_its_hold() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let job = bench.post(account, json!({ "kind": "qr.svg", "input": { "wrong": 1 } }), None).await;
    bench.poller().invoke(&json!({})).await.unwrap();
    let done = bench.get(account, &format!("/api/jobs/{}", job.body["id"].as_str().unwrap())).await.body;
    assert_eq!((&done["status"], &done["error"]["code"]), (&json!("failed"), &json!("invalid_input")));
    assert_eq!(done["credits"]["released"], 1);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_pollers_run_two_thousand_jobs_once_each() {
    let bench = Bench::new().await;
    let accounts = [bench.account(1_000).await, bench.account(1_000).await];
    for account in accounts {
        bench.enqueue(account, "qr.svg", 1_000).await;
    }
    let pollers = [bench.poller(), bench.poller(), bench.poller()];
    let event = json!({});
    let ticks = pollers.iter().map(|poller| poller.invoke(&event));
    let summaries = futures_util::future::join_all(ticks).await;
    let claimed: u64 =
        summaries.iter().map(|summary| summary.as_ref().unwrap()["claimed"].as_u64().unwrap()).sum();
    assert_eq!(claimed, 2_000, "each job is claimed once");
    assert_eq!(
        bench
            .count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded' AND attempt = 1")
            .await,
        2_000
    );
    for account in accounts {
        assert_eq!(bench.balance(account).await, (0, 0));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_nobody_here_serves_waits_and_a_retired_one_fails_with_a_refund() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "unserved", 1).await;
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["claimed"], 0);
    // However long it was allowed to take: to fail takes no time.
    bench
        .sql("UPDATE punchcard.kinds SET retired_at = now(), timeout_seconds = 840 WHERE name = 'unserved'")
        .await;
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["failed"], 1);
    let code =
        "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND error->>'code' = 'kind_retired'";
    assert_eq!(bench.count(code).await, 1);
    assert_eq!(bench.balance(account).await, (10, 0));
    let refused = bench.post(account, json!({ "kind": "unserved" }), None).await;
    assert_eq!(refused.status, 422, "a retired kind is not sold");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_life_fails_as_expired() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "unserved", 2).await;
    bench.sql("UPDATE punchcard.queue SET expires_at = now() - interval '1 second'").await;
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["lapsed"], 2);
    let code =
        "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND error->>'code' = 'expired'";
    assert_eq!(bench.count(code).await, 2);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pollers_settling_the_same_accounts_never_deadlock() {
    let bench = Bench::new().await;
    let mut accounts = HashSet::new();
    for _ in 0..20 {
        accounts.insert(bench.account(100).await);
    }
    for round in 0..3 {
        for (turn, account) in accounts.iter().enumerate() {
            bench.enqueue(*account, "qr.svg", 10 + (turn + round) % 3).await;
        }
        let pollers = [bench.poller(), bench.poller()];
        let event = json!({});
        let ticks = pollers.iter().map(|poller| poller.invoke(&event));
        for summary in futures_util::future::join_all(ticks).await {
            summary.unwrap();
        }
        for poller in &pollers {
            let logs = poller.logs().await;
            assert!(!logs.contains("deadlock") && !logs.contains("ERROR"), "{logs}");
        }
    }
    assert_eq!(
        bench.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await,
        0
    );
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs_now WHERE status <> 'succeeded'").await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lingering_tick_takes_what_comes_while_it_lingers() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let poller = bench.poller_with(&[("LINGER_MS", "5000")]);
    let tick = poller.start_invoke(&json!({}));
    tick.pid().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    bench.enqueue(account, "qr.svg", 1).await;
    assert_eq!(tick.wait().await.unwrap()["succeeded"], 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_too_late_to_be_started_goes_back_unharmed() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.http_kind("slow", 10, "http://127.0.0.1:9/").await; // may take 5 s
    bench.enqueue(account, "slow", 1).await;
    let wire = Wire::to(&bench.url).await;
    let poller = Function::new(binary("poller"), environment(&wire.url)).timeout(Duration::from_secs(10));
    poller.invoke(&json!({})).await.unwrap(); // connects, and finds the target away
    bench.sql("UPDATE punchcard.queue SET run_at = now(), attempt = 0").await;
    wire.fault("-- claim", Fault::Late(Duration::from_secs(5)));
    let summary = poller.invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["claimed"], &summary["returned"]), (&json!(1), &json!(1)), "{summary}");
    let unharmed = "SELECT count(*) FROM punchcard.queue
        WHERE lease_expires_at IS NULL AND attempt = 0 AND lease_token = 2 AND run_at <= now()";
    assert_eq!(bench.count(unharmed).await, 1);
    assert_eq!(bench.balance(account).await, (0, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlasts_its_invocation() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target =
        ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(1))).await;
    let target = target.unwrap();
    bench.http_kind("slow", 10, &target.url("/")).await;
    bench.enqueue(account, "slow", 1).await;
    let poller = bench.poller().timeout(Duration::from_secs(30));
    let tick = poller.start_invoke(&json!({}));
    while target.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = "SELECT extract(epoch FROM lease_expires_at - now())::bigint FROM punchcard.queue";
    let left = bench.count(left).await;
    assert!((30..=40).contains(&left), "{left} s of lease for 30 s of invocation");
    tick.wait().await.unwrap();
}
