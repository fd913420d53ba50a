//! A run's time limit, crashes, and that both are bounded.

use std::time::Duration;

use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{credits, until_running};
use crate::support::Bench;

/// Longer than any lease of a test's worker.
const A_LEASE: u32 = 70;

async fn tick(worker: &Function) -> Value {
    worker.invoke(&json!({})).await.expect("a tick")
}

/// A job that has not ended, held in full, with so many attempts and crashes behind it.
async fn assert_waits(bench: &Bench, account: Uuid, id: &str, attempt: u8, crashes: u8, code: &str) {
    let job = bench.job(account, id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("queued"), &json!(code)), "{job}");
    assert_eq!((&job["attempt"], &job["crashes"]), (&json!(attempt), &json!(crashes)));
    assert_eq!(job["credits"], credits(10, 0, 0));
}

/// A job that has ended.
async fn assert_ended(
    bench: &Bench,
    account: Uuid,
    id: &str,
    status: &str,
    attempt: u8,
    crashes: u8,
) -> Value {
    let job = bench.job(account, id).await;
    assert_eq!(job["status"], status, "{job}");
    assert_eq!((&job["attempt"], &job["crashes"]), (&json!(attempt), &json!(crashes)), "{job}");
    let money = if status == "succeeded" { credits(0, 10, 0) } else { credits(0, 0, 10) };
    assert_eq!(job["credits"], money);
    job["error"]["code"].clone()
}

async fn how_runs_ended(bench: &Bench, account: Uuid, id: &str) -> Vec<String> {
    let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
    let ended = |run: &Value| run["ended"].as_str().unwrap().to_owned();
    runs["data"].as_array().unwrap().iter().map(ended).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_dropped_and_counts_as_a_crash() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("timeout_seconds = 1, max_attempts = 1").await;
    let worker = bench.scripted_worker();
    let id = bench.script(account, json!([{ "do": "done", "seconds": 50 }, { "do": "done" }])).await;
    let summary = tick(&worker).await;
    assert_eq!((&summary["crashed"], &summary["succeeded"]), (&json!(1), &json!(0)));
    assert_waits(&bench, account, &id, 0, 1, "timed_out").await;
    assert_eq!(bench.balance(account).await, (0, 10));
    bench.wait(2).await;
    tick(&worker).await;
    assert_ended(&bench, account, &id, "succeeded", 1, 1).await;
    assert_eq!(how_runs_ended(&bench, account, &id).await, ["crash", "succeeded"]);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_time_outs_fail_the_job_and_cost_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("timeout_seconds = 1, max_crashes = 2, max_attempts = 25").await;
    let worker = bench.scripted_worker();
    let id = bench.script(account, json!([{ "do": "done", "seconds": 50 }])).await;
    tick(&worker).await;
    assert_waits(&bench, account, &id, 0, 1, "timed_out").await;
    bench.wait(2).await;
    assert_eq!(tick(&worker).await["failed"], 1);
    assert_eq!(assert_ended(&bench, account, &id, "failed", 1, 2).await, "timed_out");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_in_time_has_crashed() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(30)));
    let target = target.await.unwrap();
    bench.http_kind("hangs", 10, &target.url("/")).await;
    bench.sql("UPDATE punchcard.kinds SET timeout_seconds = 1, max_crashes = 2 WHERE name = 'hangs'").await;
    let id =
        bench.post(account, json!({ "kind": "hangs" }), None).await.body["id"].as_str().unwrap().to_owned();
    let poller = bench.poller();
    assert_eq!(tick(&poller).await["crashed"], 1);
    assert_waits(&bench, account, &id, 0, 1, "timed_out").await;
    bench.wait(2).await;
    tick(&poller).await;
    assert_eq!(assert_ended(&bench, account, &id, "failed", 1, 2).await, "timed_out");
    assert_eq!((bench.balance(account).await, target.requests().len()), ((10, 0), 2));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_each_worker_that_takes_it_fails_in_the_end() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("max_crashes = 3, max_attempts = 1").await;
    let worker = bench.scripted_worker();
    let id = bench.script(account, json!([{ "do": "abort" }])).await;
    for crashes in 0..3 {
        worker.invoke(&json!({})).await.unwrap_err();
        let job = bench.job(account, &id).await;
        assert_eq!(
            (&job["status"], &job["crashes"]),
            (&json!("running"), &json!(crashes)),
            "nobody knows yet"
        );
        assert_eq!((&job["credits"], bench.balance(account).await), (&credits(10, 0, 0), (0, 10)));
        assert_eq!(tick(&bench.poller()).await["rescued"], 0, "its lease is not over");
        bench.wait(A_LEASE).await;
    }
    let summary = tick(&worker).await;
    assert_eq!((&summary["lapsed"], &summary["claimed"]), (&json!(1), &json!(0)));
    assert_eq!(assert_ended(&bench, account, &id, "failed", 1, 3).await, "lease_expired");
    assert_eq!(how_runs_ended(&bench, account, &id).await, ["crash", "crash", "failed"]);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_crashes_do_not_add_up() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("timeout_seconds = 1, max_attempts = 3, max_crashes = 3").await;
    let worker = bench.scripted_worker();
    let late = json!({ "do": "done", "seconds": 50 });
    let steps = json!([{ "do": "err" }, late, { "do": "abort" }, { "do": "err" }, { "do": "done" }]);
    let id = bench.script(account, steps).await;
    tick(&worker).await;
    assert_waits(&bench, account, &id, 1, 0, "handler_error").await;
    bench.wait(5).await;
    tick(&worker).await;
    assert_waits(&bench, account, &id, 1, 1, "timed_out").await;
    bench.wait(5).await;
    worker.invoke(&json!({})).await.unwrap_err();
    bench.wait(A_LEASE).await;
    // Taken back and, since its lease was delay enough, run again in the same tick.
    assert_eq!(tick(&worker).await["rescued"], 1);
    assert_waits(&bench, account, &id, 2, 2, "handler_error").await;
    bench.wait(5).await;
    tick(&worker).await;
    assert_ended(&bench, account, &id, "succeeded", 3, 2).await;
    assert_eq!(how_runs_ended(&bench, account, &id).await, ["retry", "crash", "crash", "retry", "succeeded"]);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_the_rest_of_an_invocation_is_not_started() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("timeout_seconds = 30").await;
    let long = bench.script(account, json!([{ "do": "done" }])).await;
    let short = bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "t" } }), None).await;
    bench.sql("UPDATE punchcard.kinds SET timeout_seconds = 5 WHERE name = 'qr.svg'").await;
    let hurried = bench.scripted_worker().timeout(Duration::from_secs(20));
    assert_eq!(tick(&hurried).await["claimed"], 0);
    let job = bench.job(account, &long).await;
    assert_eq!((&job["status"], &job["started_at"]), (&json!("queued"), &Value::Null));
    assert_eq!((&job["attempt"], &job["crashes"]), (&json!(0), &json!(0)));
    assert_eq!(
        tick(&bench.poller().timeout(Duration::from_secs(20))).await["succeeded"],
        1,
        "the short one is"
    );
    let short = bench.job(account, short.body["id"].as_str().unwrap()).await;
    assert_eq!((&short["status"], bench.balance(account).await), (&json!("succeeded"), (9, 10)));
    tick(&bench.scripted_worker()).await;
    assert_ended(&bench, account, &long, "succeeded", 1, 0).await;
    assert_eq!(bench.balance(account).await, (9, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_life_is_over_fails_whether_it_waits_or_runs() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("life_seconds = 60").await;
    let worker = bench.scripted_worker();
    let running = bench.script(account, json!([{ "do": "done", "seconds": 28 }])).await;
    // It is dropped when its life ends, since nothing that it says counts from then on.
    bench.wait(50).await;
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &running).await;
    let summary = run.wait().await.unwrap();
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(0), &json!(1)));
    let waiting = bench.script(account, json!([{ "do": "done" }])).await;
    bench.wait(61).await;
    assert_eq!(tick(&worker).await["lapsed"], 2);
    assert_eq!(assert_ended(&bench, account, &running, "failed", 1, 0).await, "expired");
    assert_eq!(assert_ended(&bench, account, &waiting, "failed", 0, 0).await, "expired");
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}
