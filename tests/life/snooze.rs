//! Snooze: a handler that has nothing to do yet puts its job off, and no attempt is spent.

use serde_json::{Value, json};

use super::{credits, help::tick};
use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_sleeps_until_its_time_and_spends_no_attempt() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 1").await;
    let account = bench.account(10).await;
    let sleep = json!({ "do": "snooze", "seconds": 3_600 });
    let id = bench.script(account, json!([sleep, sleep, { "do": "done" }])).await;
    assert_eq!(tick(&bench).await["snoozed"], 1);
    for _ in 0..2 {
        let job = bench.job(account, &id).await;
        assert_eq!(
            (&job["status"], &job["attempt"], &job["error"]),
            (&json!("queued"), &json!(0), &Value::Null)
        );
        assert_eq!(job["credits"], credits(10, 0, 0));
        bench.wait(3_500).await;
        assert_eq!(tick(&bench).await["claimed"], 0, "it sleeps");
        bench.wait(101).await;
        tick(&bench).await;
    }
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["status"], &job["attempt"], &job["output"]["run"]),
        (&json!("succeeded"), &json!(1), &json!(3))
    );
    let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
    let runs = runs["data"].as_array().unwrap().iter().map(|run| (&run["ended"], &run["error"]));
    let said = |word: &str| json!(word);
    let (snooze, succeeded) = (said("snooze"), said("succeeded"));
    assert_eq!(
        runs.collect::<Vec<_>>(),
        [(&snooze, &Value::Null), (&snooze, &Value::Null), (&succeeded, &Value::Null)]
    );
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snooze_lasts_a_second_at_least_and_keeps_the_last_error() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench
        .script(account, json!([{ "do": "err" }, { "do": "snooze", "seconds": 0 }, { "do": "done" }]))
        .await;
    tick(&bench).await;
    bench.wait(60).await;
    let summary = tick(&bench).await;
    assert_eq!((&summary["snoozed"], &summary["claimed"]), (&json!(1), &json!(1)), "not at once");
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("queued"), &json!("handler_error")));
    bench.wait(2).await;
    assert_eq!(tick(&bench).await["succeeded"], 1);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_past_the_end_of_its_life_fails_and_is_released() {
    let bench = Bench::new().await;
    bench.scripted_kind("life_seconds = 600").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "snooze", "seconds": 86_400 }])).await;
    tick(&bench).await;
    bench.wait(601).await;
    assert_eq!(tick(&bench).await["lapsed"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("expired")));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}
