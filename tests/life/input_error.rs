//! A final error that blames the input, and what it costs.

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};

use super::credits;
use crate::support::Bench;

const CAPTURE: &str = "on_input_error = 'capture'";

#[tokio::test(flavor = "multi_thread")]
async fn it_costs_nothing_unless_the_kind_says_so() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("").await;
    let worker = bench.scripted_worker();
    let reject = json!([{ "do": "reject" }, { "do": "done" }]);
    let released = bench.script(account, reject.clone()).await;
    bench.sql(&format!("UPDATE punchcard.kinds SET {CAPTURE}")).await;
    let captured = bench.script(account, reject).await;
    assert_eq!(bench.balance(account).await, (0, 20));
    assert_eq!(worker.invoke(&json!({})).await.unwrap()["failed"], 2, "at once, both");
    for (id, money) in [(&released, credits(0, 0, 10)), (&captured, credits(0, 10, 0))] {
        let job = bench.job(account, id).await;
        assert_eq!(
            (&job["status"], &job["attempt"], &job["output"]),
            (&json!("failed"), &json!(1), &Value::Null)
        );
        assert_eq!(
            job["error"],
            json!({ "code": "invalid_input", "message": "as the test wants it", "attempt": 1 })
        );
        assert_eq!(job["credits"], money, "on the terms of its purchase");
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_failure_is_charged() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.scripted_kind(&format!("{CAPTURE}, max_attempts = 1, max_crashes = 1, timeout_seconds = 1")).await;
    let mut ids = Vec::new();
    for step in [
        json!({ "do": "final" }),
        json!({ "do": "err" }),
        json!({ "do": "panic" }),
        json!({ "do": "done", "seconds": 30 }),
        json!({ "do": "large", "bytes": 70_000 }),
    ] {
        ids.push(bench.script(account, json!([step])).await);
    }
    assert_eq!(bench.scripted_worker().invoke(&json!({})).await.unwrap()["failed"], 5);
    let codes = ["handler_error", "handler_error", "handler_panicked", "timed_out", "invalid_output"];
    for (id, code) in ids.iter().zip(codes) {
        let job = bench.job(account, id).await;
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!(code)));
        assert_eq!(job["credits"], credits(0, 0, 10), "{code}");
    }
    assert_eq!(bench.balance(account).await, (50, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_blames_the_input_by_400_and_422_alone() {
    let bench = Bench::new().await;
    let target = ScriptedServer::start(|request| {
        Response::json(request.path.trim_start_matches('/').parse().unwrap(), json!({}))
    })
    .await
    .unwrap();
    let account = bench.account(60).await;
    let mut ids = Vec::new();
    for terms in ["on_input_error = 'release'", CAPTURE] {
        for status in [400, 422, 404] {
            let kind = format!("{}-{status}", ids.len());
            bench.http_kind(&kind, 10, &target.url(&format!("/{status}"))).await;
            bench.sql(&format!("UPDATE punchcard.kinds SET {terms} WHERE name = '{kind}'")).await;
            ids.push(bench.post(account, json!({ "kind": kind }), None).await.body["id"].clone());
        }
    }
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["failed"], 6);
    let expected = [
        ("invalid_input", credits(0, 0, 10)),
        ("invalid_input", credits(0, 0, 10)),
        ("target_error", credits(0, 0, 10)),
        ("invalid_input", credits(0, 10, 0)),
        ("invalid_input", credits(0, 10, 0)),
        ("target_error", credits(0, 0, 10)),
    ];
    for (id, (code, money)) in ids.iter().zip(expected) {
        let job = bench.job(account, id.as_str().unwrap()).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(1)));
        assert_eq!((&job["error"]["code"], &job["credits"]), (&json!(code), &money));
    }
    assert_eq!((bench.balance(account).await, target.requests().len()), ((40, 0), 6));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_job_costs_its_whole_price_since_nobody_said_what_was_used() {
    let bench = Bench::new().await;
    let account = bench.account(15).await;
    bench.scripted_kind(&format!("{CAPTURE}, metered = true")).await;
    let id = bench.script(account, json!([{ "do": "reject", "used": 3 }])).await;
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    assert_eq!(bench.job(account, &id).await["credits"], credits(0, 10, 0));
    assert_eq!(bench.balance(account).await, (5, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_handler_blames_an_input_that_it_cannot_read() {
    let bench = Bench::new().await;
    let account = bench.account(2).await;
    bench.sql(&format!("UPDATE punchcard.kinds SET {CAPTURE} WHERE name = 'qr.svg'")).await;
    let id = bench.post(account, json!({ "kind": "qr.svg", "input": { "txet": 1 } }), None).await.body["id"]
        .clone();
    bench.poller().invoke(&json!({})).await.unwrap();
    let job = bench.job(account, id.as_str().unwrap()).await;
    assert_eq!((&job["error"]["code"], &job["credits"]), (&json!("invalid_input"), &credits(0, 1, 0)));
    assert_eq!(bench.balance(account).await, (1, 0));
    bench.assert_audit_is_clean().await;
}
