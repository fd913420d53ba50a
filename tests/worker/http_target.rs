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
    let secret = worker::jobs::http_target::kind_secret(SIGNING_SECRET, "made", 1);
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
        _ => Response::json(503, json!({})).header("retry-after", "0"),
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
