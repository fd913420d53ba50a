//! Every run of a job, and bounded results and errors.

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{code, serve, tick};
use crate::support::{Bench, event};

async fn attempts(bench: &Bench, account: Uuid, id: &str) -> Vec<Value> {
    let answer = bench.get(account, &format!("/api/jobs/{id}/runs")).await;
    assert_eq!((answer.status, &answer.body["next_cursor"]), (200, &Value::Null), "{}", answer.body);
    answer.body["data"].as_array().expect("runs").clone()
}

/// number, attempt, how it ended, why.
fn told<'a>(runs: &'a [Value]) -> Vec<(i64, i64, &'a str, &'a str)> {
    let whole = |run: &Value, field| run[field].as_i64().expect("a number");
    let tell = |run: &'a Value| {
        let why = run["error"]["code"].as_str().unwrap_or_default();
        (whole(run, "number"), whole(run, "attempt"), run["ended"].as_str().expect("a word"), why)
    };
    runs.iter().map(tell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_that_has_ended_is_told_with_its_times_and_its_error() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let steps = json!([{ "do": "err" }, { "do": "unavailable" }, { "do": "abort" }, { "do": "done" }]);
    let id = bench.script(account, steps).await;
    assert_eq!(attempts(&bench, account, &id).await, Vec::<Value>::new(), "none yet");

    assert_eq!(tick(&bench).await["retried"], 1);
    assert_eq!(told(&attempts(&bench, account, &id).await), [(1, 1, "retry", "handler_error")]);
    bench.wait(60).await;
    assert_eq!(tick(&bench).await["snoozed"], 1);
    assert_eq!(bench.job(account, &id).await["attempt"], 1, "given back");
    bench.wait(60).await;
    bench.scripted_worker().invoke(&json!({})).await.expect_err("killed in the middle");
    assert_eq!(
        attempts(&bench, account, &id).await.len(),
        2,
        "the third has not ended, as far as anybody knows"
    );
    assert_eq!(bench.balance(account).await, (0, 10), "held all the while");
    bench.wait(900).await;
    assert_eq!(tick(&bench).await["succeeded"], 1);

    let runs = attempts(&bench, account, &id).await;
    let expected = [
        (1, 1, "retry", "handler_error"),
        (2, 2, "snooze", "unavailable"),
        (3, 2, "crash", "lease_expired"),
        (4, 2, "succeeded", ""),
    ];
    assert_eq!(told(&runs), expected);
    assert_eq!(runs[0]["error"]["message"], "as the test wants it");
    assert_eq!(runs[3]["error"], Value::Null);
    for run in &runs {
        let time = |field| run[field].as_str().expect("a time").to_owned();
        assert!(time("started_at") <= time("ended_at"), "{run}");
    }
    assert!(runs.windows(2).all(|pair| pair[0]["ended_at"].as_str() <= pair[1]["started_at"].as_str()));
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["attempt"], &job["crashes"], &job["credits"]["captured"]),
        (&json!(2), &json!(1), &json!(10))
    );
    assert_eq!(job["finished_at"], runs[3]["ended_at"]);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_that_failed_a_job_is_its_last() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 2").await;
    let account = bench.account(20).await;
    let tried = bench.script(account, json!([{ "do": "err" }])).await;
    let rejected = bench.script(account, json!([{ "do": "reject" }])).await;
    tick(&bench).await;
    bench.wait(60).await;
    tick(&bench).await;
    let runs = attempts(&bench, account, &tried).await;
    assert_eq!(told(&runs), [(1, 1, "retry", "handler_error"), (2, 2, "failed", "handler_error")]);
    assert_eq!(told(&attempts(&bench, account, &rejected).await), [(1, 1, "failed", "invalid_input")]);
    assert_eq!(bench.job(account, &tried).await["error"]["code"], "handler_error");
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_tells_the_run_that_was_stopped_and_none_that_never_was() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    let waiting = bench.script(account, json!([{ "do": "err", "retry_after": 3600 }])).await;
    tick(&bench).await;
    let stopped = bench.script(account, json!([{ "do": "stop_then_err" }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    while bench.job(account, &stopped).await["status"] != "running" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(bench.act(account, &format!("/api/jobs/{stopped}/cancel")).await.status, 202);
    run.wait().await.unwrap();
    assert_eq!(told(&attempts(&bench, account, &stopped).await), [(1, 1, "canceled", "")]);

    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    for id in [&queued, &waiting] {
        assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.status, 200);
    }
    assert_eq!(attempts(&bench, account, &queued).await, Vec::<Value>::new());
    assert_eq!(told(&attempts(&bench, account, &waiting).await), [(1, 1, "retry", "handler_error")]);
    assert_eq!(bench.balance(account).await, (30, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_their_owners_and_those_who_may_look() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    tick(&bench).await;
    let path = format!("/api/jobs/{id}/runs");
    assert_eq!(code(&bench.get(other, &path).await), (404, "not_found"));
    for id in [Uuid::new_v4().to_string().as_str(), "7"] {
        assert_eq!(code(&bench.get(account, &format!("/api/jobs/{id}/runs")).await), (404, "not_found"));
    }
    assert_eq!(code(&bench.act(account, &path).await), (405, "method_not_allowed"));
    let operator = bench.service_token("a", &["operate"]).await;
    let backend = bench.service_token("b", &["enqueue"]).await;
    let granter = bench.service_token("c", &["grant"]).await;
    for (token, status) in [(&operator, 200), (&backend, 200), (&granter, 403)] {
        let bearer = format!("Bearer {token}");
        let answer = bench.request(event("GET", &path, &[("authorization", &bearer)], None)).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let nobodys = serve(&bench, &operator, &format!("/api/jobs/{}/retry", Uuid::new_v4()), None).await;
    assert_eq!(code(&nobodys), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_is_put_off_again_and_again_the_first_thousand_runs_are_kept() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "unavailable" }])).await;
    tick(&bench).await;
    bench.sql("UPDATE punchcard.queue SET lease_token = 998").await;
    for _ in 0..4 {
        bench.wait(4_000).await;
        assert_eq!(tick(&bench).await["snoozed"], 1);
    }
    let runs = attempts(&bench, account, &id).await;
    let numbers: Vec<i64> = told(&runs).iter().map(|run| run.0).collect();
    assert_eq!(numbers, [1, 999, 1_000], "and none of the two after these");
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("queued"), &json!(0)), "it goes on all the same");
    bench.sql("UPDATE punchcard.queue SET lease_token = 2000").await;
    bench.wait(700_000).await;
    assert_eq!(tick(&bench).await["lapsed"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("expired")));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_has_up_to_64_kib_and_one_that_has_more_fails_the_job() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let fits = bench.script(account, json!([{ "do": "large", "bytes": 65_534 }])).await;
    let large = bench.script(account, json!([{ "do": "large", "bytes": 65_535 }])).await;
    let summary = tick(&bench).await;
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&json!(1), &json!(1)));
    assert_eq!(bench.job(account, &fits).await["output"].as_str().unwrap().len(), 65_534);
    let large = bench.job(account, &large).await;
    assert_eq!((&large["status"], &large["output"]), (&json!("failed"), &Value::Null));
    assert_eq!(large["error"]["code"], "invalid_output");
    assert_eq!(large["error"]["message"], "the output has 65537 bytes, at most 65536 are kept");
    assert_eq!(large["attempt"], 1, "not tried again: it would be as large");
    assert_eq!((&large["credits"]["captured"], &large["credits"]["released"]), (&json!(0), &json!(10)));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_an_error_is_cut_at_1_000_characters() {
    let bench = Bench::new().await;
    let account = bench.account(1).await;
    // Its message quotes the unknown member.
    let input = json!({ "text": "t", ("ä".repeat(5_000)): 1 });
    let answer = bench.post(account, json!({ "kind": "qr.svg", "input": input }), None).await;
    bench.poller().invoke(&json!({})).await.unwrap();
    let id = answer.body["id"].as_str().unwrap();
    let job = bench.job(account, id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("invalid_input")));
    let message = job["error"]["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), 1_000, "{message}");
    assert_eq!(attempts(&bench, account, id).await[0]["error"]["message"], message);
    assert_eq!(bench.balance(account).await, (1, 0));
    bench.assert_audit_is_clean().await;
}
