//! Kinds served over HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::support::{Bench, SIGNING_SECRET};

#[tokio::test(flavor = "multi_thread")]
async fn the_job_is_posted_signed_and_the_answer_is_its_output() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({ "made": true }))).await.unwrap();
    bench.http_kind("made", 10, &target.url("/work")).await;
    let job = bench.post(account, json!({ "kind": "made", "input": { "x": 7 } }), None).await;
    bench.poller().invoke(&json!({})).await.unwrap();

    let request = target.requests().remove(0);
    let secret = shared::signing::kind_secret(SIGNING_SECRET, "made", 1);
    Webhook::new(&secret).unwrap().verify(&request.body, &request.headers).expect("a valid signature");
    assert_eq!(request.headers["webhook-id"].to_str().unwrap(), job.body["id"].as_str().unwrap());
    assert_eq!(request.headers["punchcard-attempt"], "1");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["kind"], &body["input"]["x"]), (&json!("made"), &json!(7)));
    let done = bench.get(account, &format!("/api/jobs/{}", job.body["id"].as_str().unwrap())).await.body;
    assert_eq!((&done["status"], &done["output"]), (&json!("succeeded"), &json!({ "made": true })));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_twice_and_then_works_is_charged_once() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let calls = AtomicUsize::new(0);
    let target = ScriptedServer::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Response::json(500, json!({})),
        _ => Response::json(200, json!("third time")),
    })
    .await
    .unwrap();
    bench.http_kind("flaky", 10, &target.url("/")).await;
    bench.enqueue(account, "flaky", 1).await;
    bench.drain().await;
    assert_eq!(
        bench
            .count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded' AND attempt = 3")
            .await,
        1
    );
    assert_eq!(bench.balance(account).await, (0, 0));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'capture'").await, 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_is_refunded_once() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    let target = ScriptedServer::start(|request| match request.path.as_str() {
        "/never" => Response::json(422, json!({})),
        _ => Response::json(425, json!({})).header("retry-after", "0"),
    })
    .await
    .unwrap();
    bench.http_kind("never", 10, &target.url("/never")).await;
    bench.http_kind("away", 10, &target.url("/away")).await;
    bench.enqueue(account, "never", 1).await;
    bench.enqueue(account, "away", 1).await;
    bench.drain().await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed'").await, 2);
    assert_eq!(target.requests().len(), 4, "once for the final error, three times for the other");
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_unless_allowed() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({}))).await.unwrap();
    bench.http_kind("inside", 10, &target.url("/")).await;
    bench.enqueue(account, "inside", 1).await;
    bench.poller_with(&[("ALLOW_PRIVATE_TARGETS", "false")]).invoke(&json!({})).await.unwrap();
    let code = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND error->>'code' = 'target_forbidden'";
    assert_eq!(bench.count(code).await, 1);
    assert!(target.requests().is_empty());
    assert_eq!(bench.balance(account).await, (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_kept_fails_its_own_job_alone() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let target = ScriptedServer::start(|request| match request.path.as_str() {
        "/deep" => Response::bytes(200, "[".repeat(30_000) + &"]".repeat(30_000)),
        "/nul" => Response::bytes(200, r#"{"a":"\u0000"}"#),
        "/odd" => Response::bytes(200, r#"[1e400, "\ud800"]"#),
        "/large-error" => Response::bytes(500, "x".repeat(100_000)),
        _ => Response::json(200, json!({ "fine": true })),
    })
    .await
    .unwrap();
    for path in ["deep", "nul", "odd", "large-error", "fine"] {
        bench.http_kind(path, 1, &target.url(&format!("/{path}"))).await;
        bench.enqueue(account, path, 2).await;
    }
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(summary["lost"], 0, "{summary}");
    assert!(summary["retried"].as_u64().unwrap() >= 2, "a large 500 is a 500: {summary}");
    let fine = "SELECT count(*) FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.id = o.job_id
        WHERE j.kind = 'fine' AND o.status = 'succeeded' AND o.attempt = 1";
    assert_eq!(bench.count(fine).await, 2);
    let deep = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed' AND error->>'code' = 'invalid_output'";
    assert!(bench.count(deep).await >= 2);
    bench.drain().await;
    // Whatever was kept can be shown.
    assert_eq!(bench.get(account, "/api/jobs?limit=100").await.status, 200);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_to_sign_with_http_jobs_wait() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.enqueue(account, "echo.http", 1).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let summary = bench.poller_with(&[("SIGNING_SECRET", "")]).invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["claimed"], &summary["succeeded"]), (&json!(1), &json!(1)));
}
