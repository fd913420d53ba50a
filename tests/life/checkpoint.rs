//! Checkpoints: a handler saves where it is, and yields before its time is up; the next run goes on there.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    credits,
    help::{tick, until_running},
};
use crate::support::Bench;

async fn ended(bench: &Bench, account: Uuid, id: &str) -> Vec<String> {
    let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
    runs["data"].as_array().unwrap().iter().map(|run| run["ended"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_where_the_last_one_stopped_and_no_attempt_is_spent() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 1, max_crashes = 1").await;
    let account = bench.account(10).await;
    let page = |page: u32| json!({ "do": "yield", "save": { "page": page, "exact": 0.1 } });
    let id = bench.script(account, json!([page(1), page(2), { "do": "done" }])).await;
    let mut summaries = Vec::new();
    while bench.job(account, &id).await["status"] == "queued" {
        summaries.push(tick(&bench).await);
        assert!(summaries.len() < 10, "{summaries:?}");
    }
    let yielded: i64 = summaries.iter().map(|summary| summary["yielded"].as_i64().unwrap()).sum();
    assert_eq!(yielded, 2, "{summaries:?}");
    let job = bench.job(account, &id).await;
    assert_eq!(job["output"], json!({ "run": 3, "found": { "page": 2, "exact": 0.1 } }));
    assert_eq!(
        (&job["status"], &job["attempt"], &job["crashes"]),
        (&json!("succeeded"), &json!(1), &json!(0))
    );
    assert_eq!(ended(&bench, account, &id).await, ["yield", "yield", "succeeded"]);
    assert_eq!((bench.balance(account).await, &job["credits"]), ((0, 0), &credits(0, 10, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_how_much_time_it_has_left() {
    let bench = Bench::new().await;
    bench.scripted_kind("timeout_seconds = 3").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "work", "save": "half way" }, { "do": "done" }])).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(tick(&bench).await["crashed"], 0);
    assert!(
        begun.elapsed() > Duration::from_millis(1_500),
        "it worked until a second before its time was up"
    );
    while bench.job(account, &id).await["status"] == "queued" {
        tick(&bench).await;
    }
    let job = bench.job(account, &id).await;
    assert_eq!((&job["output"]["found"], &job["crashes"]), (&json!("half way"), &json!(0)));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_outlives_errors_snoozes_and_the_worker() {
    let bench = Bench::new().await;
    bench.scripted_kind("timeout_seconds = 20").await;
    let account = bench.account(10).await;
    let steps = json!([
        { "do": "err", "save": 1 },
        { "do": "snooze", "seconds": 1 },
        { "do": "done", "seconds": 60, "save": 3 },
        { "do": "done" },
    ]);
    let id = bench.script(account, steps).await;
    for _ in 0..2 {
        tick(&bench).await;
        bench.wait(60).await;
    }
    // The third run is killed: the worker had written what it saved when it checked in.
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &id).await;
    let saved =
        format!("SELECT count(*) FROM punchcard.queue WHERE job_id = '{id}' AND checkpoint::text = '3'");
    for _ in 0..200 {
        if bench.count(&saved).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(worker);
    let _killed = run.wait().await;
    bench.wait(120).await;
    let summary = tick(&bench).await;
    assert_eq!((&summary["rescued"], &summary["succeeded"]), (&json!(1), &json!(1)), "{summary}");
    let job = bench.job(account, &id).await;
    assert_eq!((&job["output"], &job["crashes"]), (&json!({ "run": 4, "found": 3 }), &json!(1)));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_now_is_there_whatever_comes_next() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench
        .script(account, json!([{ "do": "abort", "save_now": { "paid": "p-1" } }, { "do": "done" }]))
        .await;
    // The process ends at once after it.
    let aborted = bench.scripted_worker().invoke(&json!({})).await;
    assert!(aborted.is_err(), "{aborted:?}");
    bench.wait(120).await;
    assert_eq!(tick(&bench).await["succeeded"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["output"]["found"], &job["crashes"]), (&json!({ "paid": "p-1" }), &json!(1)));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_yields_for_ever_ends_with_its_life_and_is_released() {
    let bench = Bench::new().await;
    bench.scripted_kind("life_seconds = 600").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "yield", "seconds": 0.5, "save": {} }])).await;
    // It is due again at once: this worker may take it more than once, another one does.
    let worker = bench.scripted_worker().timeout(Duration::from_secs(40));
    let _cut_short = tokio::time::timeout(Duration::from_secs(4), worker.invoke(&json!({}))).await;
    drop(worker);
    bench.wait(601).await;
    assert_eq!(tick(&bench).await["lapsed"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("expired")));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_small() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    for (bytes, status) in [(16_384 - 2, "succeeded"), (16_384 - 1, "failed")] {
        let id = bench.script(account, json!([{ "do": "done", "save": "x".repeat(bytes) }])).await;
        tick(&bench).await;
        let job = bench.job(account, &id).await;
        assert_eq!(job["status"], status, "{bytes}: {}", job["error"]);
        if status == "failed" {
            assert_eq!(job["error"]["message"], "a checkpoint has at most 16384 bytes of JSON, not 16385");
        }
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_to_be_canceled_does_not_go_on() {
    let bench = Bench::new().await;
    bench.scripted_kind("on_cancel = 'capture'").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "yield", "seconds": 1.5, "save": 1 }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &id).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.status, 202);
    run.wait().await.unwrap();
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["output"]), (&json!("canceled"), &Value::Null));
    assert_eq!((bench.balance(account).await, &job["credits"]), ((0, 0), &credits(0, 10, 0)));
    bench.assert_audit_is_clean().await;
}
