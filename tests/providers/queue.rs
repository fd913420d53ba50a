//! A queue API (fal's kind).

use std::sync::atomic::{AtomicUsize, Ordering};

use local::scripted::{Request, Response, ScriptedServer};
use serde_json::{Value, json};

use super::{bought, worker};
use crate::support::Bench;

const ID: &str = "764cabcf-b745-4b3e-ae38-1200304cf45b";

/// A provider that has these statuses, one after the other, and this result.
async fn provider(statuses: &'static [&'static str], result: (u16, Value)) -> ScriptedServer {
    let looks = AtomicUsize::new(0);
    let answer = move |request: Request| {
        let host = request.headers["host"].to_str().unwrap().to_owned();
        let base = format!("http://{host}/fal-ai/fast-svd/requests/{ID}");
        let urls = json!({
            "request_id": ID, "response_url": base, "status_url": format!("{base}/status"), "cancel_url": format!("{base}/cancel"),
        });
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/fal-ai/fast-svd") => Response::json(200, urls),
            ("GET", path) if path.ends_with("/status") => {
                let status = statuses[looks.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1)];
                let more = match status {
                    "IN_QUEUE" => json!({ "queue_position": 3 }),
                    _ => {
                        json!({ "logs": [{ "message": "sampling", "level": "INFO", "timestamp": "2026-11-25T20:00:00Z" }] })
                    }
                };
                let mut said = json!({ "status": status, "response_url": base });
                said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                Response::json(if status == "COMPLETED" { 200 } else { 202 }, said)
            }
            ("GET", _) => Response::json(result.0, result.1.clone()),
            other => panic!("{other:?}"),
        }
    };
    ScriptedServer::start(answer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_submitted_once_and_looked_at_until_it_is_done() {
    let bench = Bench::new().await;
    let video =
        json!({ "video": { "url": "https://cdn.example/1.mp4", "content_type": "video/mp4" }, "seed": 7 });
    let provider = provider(&["IN_QUEUE", "IN_PROGRESS", "COMPLETED"], (200, video.clone())).await;
    let (account, id) =
        bought(&bench, "video.make", json!({ "image_url": "https://cdn.example/1.png" })).await;
    let worker = worker(&bench, &provider, "Key k");
    let mut snoozes = 0;
    while bench.job(account, &id).await["status"] == "queued" {
        let summary = worker.invoke(&json!({})).await.unwrap();
        snoozes += summary["snoozed"].as_u64().unwrap();
        bench.wait(6).await;
        assert!(snoozes < 5, "{summary}");
    }
    assert_eq!(snoozes, 3, "once submitted, twice not done");
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["output"], &job["attempt"]), (&json!("succeeded"), &video, &json!(1)));
    let requests = provider.requests();
    let submitted: Vec<&Request> = requests.iter().filter(|request| request.method == "POST").collect();
    assert_eq!(submitted.len(), 1);
    assert_eq!(submitted[0].headers["authorization"], "Key k");
    let input: Value = serde_json::from_slice(&submitted[0].body).unwrap();
    assert_eq!(input, json!({ "image_url": "https://cdn.example/1.png" }));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_to_an_error_fails_the_job_and_is_released() {
    let bench = Bench::new().await;
    let provider = provider(&["COMPLETED"], (422, json!({ "detail": [{ "msg": "no such image" }] }))).await;
    let (account, id) = bought(&bench, "video.make", json!({})).await;
    let worker = worker(&bench, &provider, "Key k");
    worker.invoke(&json!({})).await.unwrap();
    bench.wait(6).await;
    worker.invoke(&json!({})).await.unwrap();
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("invalid_input")));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_with_the_life_of_its_job() {
    let bench = Bench::new().await;
    let provider = provider(&["IN_QUEUE"], (200, json!(null))).await;
    let (account, id) = bought(&bench, "video.make", json!({})).await;
    let worker = worker(&bench, &provider, "Key k");
    worker.invoke(&json!({})).await.unwrap();
    bench.wait(700_000).await;
    assert_eq!(worker.invoke(&json!({})).await.unwrap()["lapsed"], 1);
    assert_eq!(bench.job(account, &id).await["error"]["code"], "expired");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}
