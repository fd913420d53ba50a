//! A prediction API with webhooks (Replicate's kind).

use local::scripted::{Request, Response, ScriptedServer};
use serde_json::{Value, json};

use super::{bought, worker};
use crate::support::{Bench, PUBLIC_URL, event};

const ID: &str = "ufawqhfynnddngldkgtslldrkq";

/// A prediction, as the provider documents it.
fn prediction(status: &str, output: Value, error: Value) -> Value {
    json!({
        "id": ID, "model": "stability-ai/sdxl", "status": status, "input": { "prompt": "a hedgehog" },
        "version": "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
        "output": output, "error": error, "logs": "Using seed: 12345", "metrics": { "predict_time": 4.484541 },
        "created_at": "2026-11-25T20:00:00.123Z", "started_at": "2026-11-25T20:00:01.123Z", "completed_at": null,
        "urls": {
            "get": format!("https://api.provider.example/v1/predictions/{ID}"),
            "cancel": format!("https://api.provider.example/v1/predictions/{ID}/cancel"),
        },
    })
}

async fn provider(status: &'static str) -> ScriptedServer {
    let answer = move |request: Request| match (request.method.as_str(), status) {
        ("POST", _) => Response::json(201, prediction("starting", Value::Null, Value::Null)),
        (_, "succeeded") => {
            Response::json(200, prediction(status, json!(["https://cdn.example/1.png"]), Value::Null))
        }
        _ => Response::json(200, prediction(status, Value::Null, json!("out of memory"))),
    };
    ScriptedServer::start(answer).await.unwrap()
}

/// The provider's webhook, to the URL that it was given.
async fn webhook(bench: &Bench, provider: &ScriptedServer, body: &Value) -> u64 {
    let created: Value = serde_json::from_slice(&provider.requests()[0].body).unwrap();
    let url = created["webhook"].as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap().to_owned();
    let headers = [("content-type", "application/json"), ("webhook-id", "msg_1")];
    bench.request(event("POST", &url, &headers, Some(&body.to_string()))).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_is_made_outside_and_its_own_webhook_ends_the_job() {
    let bench = Bench::new().await;
    let provider = provider("processing").await;
    let (account, id) = bought(&bench, "image.predict", json!({ "prompt": "a hedgehog" })).await;
    let worker = worker(&bench, &provider, "Bearer r8_key");
    assert_eq!(worker.invoke(&json!({})).await.unwrap()["waiting"], 1);
    let created = provider.requests().remove(0);
    assert_eq!(
        (created.path.as_str(), &created.headers["authorization"]),
        ("/v1/predictions", &"Bearer r8_key".parse().unwrap())
    );
    let created: Value = serde_json::from_slice(&created.body).unwrap();
    assert_eq!(created["input"], json!({ "prompt": "a hedgehog" }));
    assert_eq!(created["webhook_events_filter"], json!(["completed"]));

    assert_eq!(webhook(&bench, &provider, &prediction("processing", Value::Null, Value::Null)).await, 200);
    assert_eq!(bench.job(account, &id).await["status"], "running");
    let output = json!(["https://cdn.example/1.png"]);
    let done = prediction("succeeded", output.clone(), Value::Null);
    assert_eq!(webhook(&bench, &provider, &done).await, 200);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["output"], &job["attempt"]), (&json!("succeeded"), &output, &json!(1)));
    assert_eq!(webhook(&bench, &provider, &done).await, 409, "once");
    assert_eq!(bench.balance(account).await, (0, 0));
    assert_eq!(provider.requests().len(), 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_that_fails_or_is_canceled_fails_the_job_and_is_released() {
    let bench = Bench::new().await;
    for (said, why) in [
        (prediction("failed", Value::Null, json!("NSFW content detected")), "NSFW content detected"),
        (prediction("canceled", Value::Null, Value::Null), "canceled by who did it"),
    ] {
        let provider = provider("processing").await;
        let (account, id) = bought(&bench, "image.predict", json!({})).await;
        worker(&bench, &provider, "Bearer k").invoke(&json!({})).await.unwrap();
        assert_eq!(webhook(&bench, &provider, &said).await, 200);
        let job = bench.job(account, &id).await;
        assert_eq!((&job["status"], &job["error"]["message"]), (&json!("failed"), &json!(why)));
        assert_eq!(bench.balance(account).await, (10, 0));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_after_it_has_paid_does_not_pay_again() {
    let bench = Bench::new().await;
    for (status, becomes, left) in
        [("succeeded", "succeeded", 0), ("failed", "failed", 10), ("processing", "queued", 0)]
    {
        let provider = provider(status).await;
        let (account, id) = bought(&bench, "image.predict", json!({})).await;
        // It created the prediction, saved its id, and was never heard of again.
        bench.rows("SELECT job_id FROM punchcard.claim(1, '{image.predict}', false, 60, 60)").await;
        let save = format!(
            "SELECT job_id FROM punchcard.check_in('{{{id}}}', '{{1}}', '{{NULL}}', '{{NULL}}', '{{\"\\\"{ID}\\\"\"}}')"
        );
        bench.rows(&save).await;
        bench.wait(120).await;
        worker(&bench, &provider, "Bearer k").invoke(&json!({})).await.unwrap();
        let paths: Vec<String> = provider
            .requests()
            .into_iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect();
        assert_eq!(paths, [format!("GET /v1/predictions/{ID}")]);
        let job = bench.job(account, &id).await;
        assert_eq!((job["status"].as_str().unwrap(), &job["crashes"]), (becomes, &json!(1)));
        assert_eq!(bench.balance(account).await.0, left);
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_provider_spends_no_attempt_and_a_refused_input_is_blamed() {
    let bench = Bench::new().await;
    for (status, becomes, code, attempt) in [
        (429, "queued", "unavailable", 0),
        (422, "failed", "invalid_input", 1),
        (401, "failed", "handler_error", 1),
        (500, "queued", "handler_error", 1),
    ] {
        let provider = ScriptedServer::start(move |_| {
            Response::json(status, json!({ "detail": "no" })).header("retry-after", "60")
        });
        let provider = provider.await.unwrap();
        let (account, id) = bought(&bench, "image.predict", json!({})).await;
        worker(&bench, &provider, "Bearer k").invoke(&json!({})).await.unwrap();
        let job = bench.job(account, &id).await;
        assert_eq!(
            (job["status"].as_str().unwrap(), job["error"]["code"].as_str().unwrap()),
            (becomes, code),
            "{status}"
        );
        assert_eq!(job["attempt"], attempt, "{status}");
        // Out of the way of the next one.
        bench.sql("UPDATE punchcard.queue SET run_at = run_at + interval '1 hour'").await;
    }
    bench.assert_audit_is_clean().await;
}
