//! An answer to what was done says that it was done, though nothing can be read any more once it is.

use std::time::Duration;

use local::lambda::Function;
use serde_json::{Value, json};
use shared::signing::callback_token;
use uuid::Uuid;

use crate::support::{
    Bench, SIGNING_SECRET, bearer, binary,
    documented::assert_documented,
    environment, event,
    wire::{Fault, Wire},
};

/// What a function answers whose statement with this header is the last that is answered at all.
async fn last(bench: &Bench, header: &'static str, request: &Value) -> (u64, Value, Value) {
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url)).timeout(Duration::from_secs(12));
    let health = api.invoke(&event("GET", "/api/health", &[], None)).await.expect("an answer");
    assert_eq!(health["statusCode"], 200);
    wire.fault(header, Fault::NothingAfter);
    let answer = api.invoke(request).await.expect("an answer");
    assert_documented(request, &answer);
    let body = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default();
    (answer["statusCode"].as_u64().expect("a status"), answer["headers"].clone(), body)
}

fn post(account: Uuid, path: &str, more: &[(&str, &str)], body: &Value) -> Value {
    let token = bearer(account);
    let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
    headers.extend(more);
    event("POST", path, &headers, Some(&body.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_retry_say_what_they_did() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.scripted_kind("").await;
    let done = json!([{ "do": "done" }]);
    let running = bench.script(account, done.clone()).await;
    bench.sql("SELECT count(*) FROM punchcard.claim(1, '{test.scripted}', true, 60, 60)").await;
    let queued = bench.script(account, done).await;

    let path = |id: &str, what: &str| format!("/api/jobs/{id}/{what}");
    let (status, headers, job) =
        last(&bench, "-- cancel", &post(account, &path(&running, "cancel"), &[], &json!({}))).await;
    assert_eq!((status, &job["id"], &job["status"]), (202, &json!(running), &json!("running")), "{job}");
    assert!(job["cancel_requested_at"].is_string() && headers["retry-after"].is_string());
    assert_eq!(bench.job(account, &running).await, job);

    let (status, _, job) =
        last(&bench, "-- cancel", &post(account, &path(&queued, "cancel"), &[], &json!({}))).await;
    assert_eq!((status, &job["id"], &job["status"]), (200, &json!(queued), &json!("canceled")), "{job}");
    assert_eq!((&job["credits"]["held"], &job["credits"]["released"]), (&json!(0), &json!(10)));
    assert_eq!(bench.job(account, &queued).await, job);

    let (status, headers, job) =
        last(&bench, "-- retry", &post(account, &path(&queued, "retry"), &[], &json!({}))).await;
    assert_eq!((status, &job["retry_of"], &job["status"]), (202, &json!(queued), &json!("queued")), "{job}");
    let id = job["id"].as_str().expect("an id");
    assert_eq!(headers["location"], format!("/api/jobs/{id}"));
    assert_eq!(bench.job(account, id).await, job);
    assert_eq!(bench.balance(account).await, (80, 20), "bought once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_and_its_replay_say_which_job_it_is() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let job =
        json!({ "kind": "qr.svg", "input": { "text": "t" }, "tags": ["a"], "metadata": { "order": "7" } });
    let keyed = [("idempotency-key", "order-7")];
    let (status, headers, bought) =
        last(&bench, "-- enqueue", &post(account, "/api/jobs", &keyed, &job)).await;
    assert_eq!((status, &headers["idempotent-replayed"]), (202, &Value::Null), "{bought}");
    let id = bought["id"].as_str().expect("an id");
    assert_eq!(bench.job(account, id).await, bought);

    // How it stands is not known; that it is bought is.
    let wait = [("idempotency-key", "order-7"), ("prefer", "wait=1")];
    for more in [&keyed[..], &wait] {
        let (status, headers, again) =
            last(&bench, "-- enqueue", &post(account, "/api/jobs", more, &job)).await;
        assert_eq!((status, &headers["idempotent-replayed"]), (200, &json!("true")), "{again}");
        assert_eq!(headers["location"], format!("/api/jobs/{id}"));
        assert_eq!(again, bought, "as it was bought");
    }
    let (status, _, other) =
        last(&bench, "-- enqueue", &post(account, "/api/jobs", &[("prefer", "wait=1")], &job)).await;
    assert_eq!((status, &other["status"]), (202, &json!("queued")), "{other}");

    let batch = json!({ "jobs": [job, job] });
    let keyed = [("idempotency-key", "orders")];
    let (status, _, first) =
        last(&bench, "-- enqueue_batch", &post(account, "/api/jobs:batch", &keyed, &batch)).await;
    let (again, headers, second) =
        last(&bench, "-- enqueue_batch", &post(account, "/api/jobs:batch", &keyed, &batch)).await;
    assert_eq!((status, again, &headers["idempotent-replayed"]), (202, 200, &json!("true")));
    assert_eq!(first["data"][1]["id"], second["data"][1]["id"]);
    assert_eq!(bench.balance(account).await, (96, 4), "each once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_writes_says_so() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.scripted_kind("").await;
    let id = bench.script(account, json!([{ "do": "wait", "seconds": 3_600 }])).await;
    bench.scripted_worker().invoke(&json!({})).await.expect("a tick");
    let service = format!("Bearer {}", bench.service_token("operator", &["grant", "operate"]).await);
    let token = bearer(account);
    let call = |method: &str, path: &str, who: &str, body: Value| {
        let headers =
            [("authorization", who), ("content-type", "application/json"), ("idempotency-key", "k")];
        event(method, path, &headers, Some(&body.to_string()))
    };
    let callback = format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, id.parse().unwrap(), 1));
    let hook = json!({ "url": "https://127.0.0.1:9/hook" });
    let (granting, grant) = (format!("/api/credits/grants?account_id={account}"), json!({ "amount": 5 }));
    for (header, request, status) in [
        ("-- set_webhook", call("PUT", "/api/webhook", &token, hook), 200),
        ("-- rotate_webhook_secret", call("POST", "/api/webhook/rotate-secret", &token, json!({})), 200),
        ("-- set_webhook", call("DELETE", "/api/webhook", &token, json!({})), 204),
        ("-- grant", call("POST", &granting, &service, grant.clone()), 201),
        ("-- grant", call("POST", &granting, &service, grant), 200),
        ("-- redrive", call("POST", "/api/jobs:retry", &service, json!({ "kind": "qr.svg" })), 200),
        ("-- call_back", call("POST", &callback, "", json!({ "status": "succeeded" })), 200),
    ] {
        let (answered, _, body) = last(&bench, header, &request).await;
        assert_eq!(answered, status, "{header}: {body}");
    }
    assert_eq!(bench.balance(account).await, (95, 0));
    bench.assert_audit_is_clean().await;
}
