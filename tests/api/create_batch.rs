//! `POST /api/jobs:batch`.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Bench, bearer, event};

async fn post(bench: &Bench, account: Uuid, body: &Value, key: Option<&str>) -> Answer {
    let token = bearer(account);
    let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    bench.request(event("POST", "/api/jobs:batch", &headers, Some(&body.to_string()))).await
}

fn jobs(count: usize) -> Value {
    let jobs: Vec<Value> =
        (0..count).map(|n| json!({ "kind": "qr.svg", "input": { "text": n.to_string() } })).collect();
    json!({ "jobs": jobs })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_are_bought_at_once_each_with_its_hold() {
    let bench = Bench::new().await;
    let account = bench.account(1_500).await;
    let answer = post(&bench, account, &jobs(1_000), None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let data = answer.body["jobs"].as_array().unwrap();
    assert_eq!((data.len(), &data[0]["status"], &data[0]["price"]), (1_000, &json!("queued"), &json!(1)));
    assert_eq!(bench.balance(account).await, (500, 1_000));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'hold'").await, 1_000);
    // Answered in their order.
    let id = data[7]["id"].as_str().unwrap();
    assert_eq!(bench.get(account, &format!("/api/jobs/{id}")).await.body["input"], json!({ "text": "7" }));
    bench.assert_audit_is_clean().await;
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (500, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_or_nothing_and_the_answer_says_which_job() {
    let bench = Bench::new().await;
    let account = bench.account(5).await;
    let with = |job: Value| {
        let mut body = jobs(3);
        body["jobs"][1] = job;
        body
    };
    let cases = [
        (with(json!({ "kind": "no.such" })), 422, "unknown_kind"),
        (with(json!({ "kind": "qr.svg", "priority": 11 })), 422, "invalid_priority"),
        (with(json!({ "kind": "qr.svg", "run_at": "2999-01-01T00:00:00Z" })), 422, "invalid_run_at"),
        (with(json!({ "kind": "qr.svg", "run_at": "tomorrow" })), 400, "invalid_run_at"),
        (with(json!({ "kind": "qr.svg", "price": 0 })), 400, "unknown_field"),
        (with(json!({ "kind": "qr.svg", "account_id": account })), 400, "unknown_field"),
        (with(json!({ "input": 1 })), 400, "invalid_field"),
        (with(json!("qr.svg")), 400, "invalid_field"),
        (with(json!({ "kind": "qr.svg", "input": "x".repeat(65_535) })), 413, "too_large"),
    ];
    for (body, status, code) in cases {
        let answer = post(&bench, account, &body, Some("k")).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{}", answer.body);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.starts_with("Job 2 of the batch"), "{detail}");
    }
    for (body, status, code) in [
        (json!({ "jobs": [] }), 422, "invalid_batch"),
        (jobs(1_001), 422, "invalid_batch"),
        (json!({ "jobs": {} }), 400, "invalid_field"),
        (json!({}), 400, "invalid_field"),
        (jobs(6), 402, "insufficient_credits"),
        (json!({ "jobs": ["x".repeat(4 * 1024 * 1024)] }), 413, "too_large"),
    ] {
        let answer = post(&bench, account, &body, Some("k")).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)));
    }
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);
    assert_eq!(bench.balance(account).await, (5, 0));
    assert_eq!(post(&bench, account, &jobs(5), Some("k")).await.status, 202, "no refusal left the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_names_the_whole_batch() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    // Credits for one batch only: a twin must be a replay, never a refusal.
    let batch = jobs(30);
    let answers = join_all((0..12).map(|_| post(&bench, account, &batch, Some("k")))).await;
    let new = answers.iter().filter(|answer| answer.status == 202).count();
    let replayed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((new, replayed), (1, 11));
    assert!(answers.iter().all(|answer| answer.body["jobs"] == answers[0].body["jobs"]));
    assert_eq!(bench.balance(account).await, (0, 30));
    let other = post(&bench, account, &jobs(29), Some("k")).await;
    assert_eq!((other.status, &other.body["code"]), (422, &json!("idempotency_mismatch")));
    // Also once the kind is not sold any more: what was bought stays bought.
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'qr.svg'").await;
    let late = post(&bench, account, &batch, Some("k")).await;
    assert_eq!((late.status, &late.body["jobs"]), (200, &answers[0].body["jobs"]));
    bench.sql("UPDATE punchcard.kinds SET retired_at = NULL WHERE name = 'qr.svg'").await;
    let single = bench.post(account, json!({ "kind": "qr.svg" }), Some("k")).await;
    assert_eq!(single.status, 422, "nor does it name a single job");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_kept_as_it_was_sent_null_too() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let inputs = ["null", "{}", "1.0", r#"{"b":1,"a":[null]}"#, r#""null""#];
    let jobs = inputs.iter().map(|input| format!(r#"{{"kind":"qr.svg","input":{input}}}"#));
    let body = format!(r#"{{"jobs":[{},{{"kind":"qr.svg"}}]}}"#, jobs.collect::<Vec<_>>().join(","));
    let answer = bench.request(event("POST", "/api/jobs:batch", &headers, Some(&body))).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let kept = bench.rows("SELECT input::text FROM punchcard.jobs ORDER BY id").await;
    let kept: Vec<String> = kept.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, ["null", "{}", "1.0", r#"{"b":1,"a":[null]}"#, r#""null""#, "{}"]);
}
