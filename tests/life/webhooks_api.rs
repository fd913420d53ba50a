//! Webhooks as they are set, shown and refused through the API.

use local::lambda::Function;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    assert_refused,
    help::{books, code, tick},
    webhooks::{ask, buy, listener, tell},
};
use crate::support::{Answer, Bench, bearer, binary, environment, event};

/// The API with an environment without one of its settings.
fn api_without(bench: &Bench, setting: &str) -> Function {
    let mut env = environment(&bench.url);
    env.retain(|(name, _)| name != setting);
    Function::new(binary("api"), env)
}

/// The bench with the API as it is deployed: no private targets.
async fn deployed() -> Bench {
    let mut bench = Bench::new().await;
    bench.api = api_without(&bench, "ALLOW_PRIVATE_TARGETS");
    bench
}

async fn as_service(bench: &Bench, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let token = format!("Bearer {token}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    bench.request(event(method, path, &headers, body.map(|body| body.to_string()).as_deref())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_sets_looks_at_rotates_and_removes_its_webhook() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    let first = ask(&bench, account, "GET", "/api/webhook", None).await;
    assert_eq!((first.status, &first.body["url"], &first.body["events"]), (200, &Value::Null, &json!([])));
    let secret = first.body["secret"].as_str().expect("before there is a url").to_owned();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(first.headers["cache-control"], "no-store");
    let strangers = ask(&bench, other, "GET", "/api/webhook", None).await.body["secret"].clone();
    assert_ne!(strangers, json!(secret), "everybody has one of their own");

    let url = "https://example.com/hooks?k=v";
    let set = ask(&bench, account, "PUT", "/api/webhook", Some(json!({ "url": url }))).await;
    assert_eq!((set.status, &set.body["url"], &set.body["secret"]), (200, &json!(url), &json!(secret)));
    assert_eq!(set.body["events"], json!(["job.succeeded", "job.failed", "job.canceled"]));
    let events = json!(["job.failed", "job.running"]);
    let set =
        ask(&bench, account, "PUT", "/api/webhook", Some(json!({ "url": url, "events": events }))).await;
    assert_eq!((set.status, &set.body["events"], &set.body["rotated_at"]), (200, &events, &Value::Null));
    let shown = ask(&bench, account, "GET", "/api/webhook", None).await;
    assert_eq!((shown.status, &shown.body), (200, &set.body));

    let rotated = ask(&bench, account, "POST", "/api/webhook/rotate-secret", None).await;
    assert_eq!((rotated.status, &rotated.body["previous_secret"]), (200, &json!(secret)));
    assert!(rotated.body["previous_secret_until"].is_string() && rotated.body["rotated_at"].is_string());
    assert_eq!((&rotated.body["url"], &rotated.body["events"]), (&json!(url), &events));
    let again = ask(&bench, account, "POST", "/api/webhook/rotate-secret", None).await;
    assert_eq!(again.body["previous_secret"], rotated.body["secret"], "the one before that signs no more");
    assert_eq!(ask(&bench, other, "GET", "/api/webhook", None).await.body["secret"], strangers);

    for _ in 0..2 {
        let removed = ask(&bench, account, "DELETE", "/api/webhook", None).await;
        assert_eq!((removed.status, &removed.body), (204, &Value::Null));
    }
    let shown = ask(&bench, account, "GET", "/api/webhook", None).await;
    assert_eq!((&shown.body["url"], &shown.body["events"]), (&Value::Null, &json!([])));
    assert_eq!(shown.body["secret"], again.body["secret"], "it stays");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_names_the_account_and_needs_the_scope() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    let enqueuer = bench.service_token("backend", &["enqueue"]).await;
    let operator = bench.service_token("operator", &["operate"]).await;
    let granter = bench.service_token("payments", &["grant"]).await;
    let path = format!("/api/webhook?account_id={account}");
    let rotate = format!("/api/webhook/rotate-secret?account_id={account}");
    let body = || Some(json!({ "url": "https://example.com/" }));
    for (token, method, path, status) in [
        (&operator, "PUT", &path, 200),
        (&enqueuer, "PUT", &path, 403),
        (&granter, "PUT", &path, 403),
        (&operator, "GET", &path, 200),
        (&enqueuer, "GET", &path, 403),
        (&granter, "GET", &path, 403),
        (&operator, "POST", &rotate, 200),
        (&enqueuer, "POST", &rotate, 403),
        (&enqueuer, "DELETE", &path, 403),
        (&operator, "DELETE", &path, 204),
    ] {
        let answer = as_service(&bench, token, method, path, body().filter(|_| method == "PUT")).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    let told = as_service(&bench, &operator, "POST", &rotate, body()).await;
    assert_refused(&told, 400, "unknown_field");
    assert_refused(
        &as_service(&bench, &operator, "GET", "/api/webhook", None).await,
        400,
        "account_required",
    );
    let named = ask(&bench, account, "GET", &path, None).await;
    assert_refused(&named, 400, "unknown_parameter");
    assert_refused(&ask(&bench, account, "GET", "/api/webhook?x=1", None).await, 400, "unknown_parameter");
    assert_eq!(bench.request(event("GET", "/api/webhook", &[], None)).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_be_told_is_refused_and_nothing_is_bought() {
    let bench = deployed().await;
    let account = bench.account(10).await;
    let before = books(&bench).await;
    let long = format!("https://example.com/{}", "x".repeat(2_000));
    let urls = [
        "http://example.com/",
        "https://user:pa55@example.com/",
        "https://user@example.com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://localhost/",
        "https://localhost./",
        "https://a.localhost:8443/",
        "https://example.com:22/",
        "https://example.com:80/",
        "https://",
        "https:///x",
        "file:///etc/passwd",
        "ftp://example.com/",
        "javascript:alert(1)",
        "example.com",
        "",
        " https://example.com/",
        "https://example.com/ x",
        "https://example.com/\r\nx-y: z",
        "https://exa\tmple.com/",
        "https://ex\u{e4}mple.com/",
        "https://example.com/\u{e4}",
        "https://example.com/#top",
        "https://example.com#@127.0.0.1/",
        "#",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com\\@127.0.0.1/",
        "HTTPS://EXAMPLE.COM/",
        &long,
    ];
    for url in urls {
        let hook = json!({ "url": url });
        let put = ask(&bench, account, "PUT", "/api/webhook", Some(hook.clone())).await;
        assert_refused(&put, 422, "invalid_webhook");
        assert!(!put.body["detail"].as_str().unwrap().contains("pa55"), "{}", put.body);
        let job = json!({ "kind": "qr.svg", "input": { "text": "t" }, "webhook": hook });
        assert_refused(&bench.post(account, job.clone(), Some("k")).await, 422, "invalid_webhook");
        let batch = json!({ "jobs": [{ "kind": "qr.svg" }, job] });
        let batch = ask(&bench, account, "POST", "/api/jobs:batch", Some(batch)).await;
        assert_refused(&batch, 422, "invalid_webhook");
    }
    for (hook, status, word) in [
        (json!({ "url": "https://example.com/", "events": [] }), 422, "invalid_webhook"),
        (json!({ "url": "https://example.com/", "events": ["job.done"] }), 422, "invalid_webhook"),
        (json!({ "url": "https://example.com/", "events": "job.failed" }), 400, "invalid_field"),
        (json!({ "url": "https://example.com/", "secret": "mine" }), 400, "unknown_field"),
        (json!({ "events": ["job.failed"] }), 400, "invalid_field"),
        (json!({ "url": null }), 400, "invalid_field"),
        (json!({ "url": 7 }), 400, "invalid_field"),
    ] {
        let put = ask(&bench, account, "PUT", "/api/webhook", Some(hook.clone())).await;
        assert_refused(&put, status, word);
        let job = json!({ "kind": "qr.svg", "webhook": hook });
        assert_refused(&bench.post(account, job, None).await, status, word);
    }
    let many: Vec<_> = (0..11)
        .map(|n| json!({ "kind": "qr.svg", "webhook": { "url": format!("https://h{n}.invalid/") } }))
        .collect();
    let batch = ask(&bench, account, "POST", "/api/jobs:batch", Some(json!({ "jobs": many }))).await;
    assert_refused(&batch, 422, "invalid_webhook");
    assert_eq!(books(&bench).await, before, "nothing was bought, and no key used");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.webhooks").await, 0);
    assert!(!bench.api.logs().await.contains("pa55"), "what is refused is not logged either");
    // What does not resolve is taken: it is vetted whenever something is sent.
    let hook = json!({ "url": "https://nowhere.invalid/x?y" });
    assert_eq!(ask(&bench, account, "PUT", "/api/webhook", Some(hook)).await.status, 200);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_answers_what_it_bought_whatever_has_become_of_the_host() {
    let mut bench = Bench::new().await;
    let account = bench.account(10).await;
    // Bought while that host was a public one, as far as this API knows.
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" }, "webhook": { "url": "https://127.1/" } });
    let bought = bench.post(account, job.clone(), Some("k")).await;
    assert_eq!((bought.status, &bought.body["webhook"]["url"]), (202, &json!("https://127.1/")));
    for setting in ["ALLOW_PRIVATE_TARGETS", "SIGNING_SECRET"] {
        bench.api = api_without(&bench, setting);
        let again = bench.post(account, job.clone(), Some("k")).await;
        assert_eq!((again.status, &again.body), (200, &bought.body), "without {setting}");
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(bench.post(account, job.clone(), Some("another")).await.status, 422);
        assert_eq!(bench.post(account, job.clone(), None).await.status, 422);
    }
    assert_eq!(bench.balance(account).await, (9, 1), "once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_to_sign_with_nobody_can_be_told() {
    let mut bench = Bench::new().await;
    bench.api = api_without(&bench, "SIGNING_SECRET");
    let account = bench.account(10).await;
    let hook = json!({ "url": "https://example.com/" });
    let put = ask(&bench, account, "PUT", "/api/webhook", Some(hook.clone())).await;
    assert_refused(&put, 422, "webhooks_not_offered");
    let rotated = ask(&bench, account, "POST", "/api/webhook/rotate-secret", None).await;
    assert_refused(&rotated, 422, "webhooks_not_offered");
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" }, "webhook": hook });
    assert_refused(&bench.post(account, job, Some("k")).await, 422, "webhooks_not_offered");
    let shown = ask(&bench, account, "GET", "/api/webhook", None).await;
    assert_eq!((shown.status, &shown.body["secret"], &shown.body["url"]), (200, &Value::Null, &Value::Null));
    assert_eq!(ask(&bench, account, "DELETE", "/api/webhook", None).await.status, 204);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_job_are_listed_to_its_owner() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(20).await, bench.account(0).await);
    tell(&bench, account, &server.url("/"), None).await;
    let all = json!(["job.running", "job.succeeded"]);
    let own = json!({ "webhook": { "url": server.url("/own"), "events": all } });
    let job = buy(&bench, account, json!([{ "do": "done" }]), own).await;
    let common = buy(&bench, account, json!([{ "do": "done" }]), json!({})).await;
    let path = format!("/api/jobs/{job}/deliveries");
    assert_eq!(bench.get(account, &path).await.body, json!({ "data": [], "next_cursor": null, "limit": 20 }));
    tick(&bench).await;
    let listed = bench.get(account, &path).await.body;
    let [first, second] = listed["data"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((&first["event"], &second["event"]), (&json!("job.running"), &json!("job.succeeded")));
    assert_eq!((&first["url"], &first["attempt"]), (&json!(server.url("/own")), &json!(1)));
    assert!(first["delivered_at"].is_string() && first["created_at"].is_string() && first["error"].is_null());
    let page = bench.get(account, &format!("{path}?limit=1")).await.body;
    assert_eq!((&page["data"], &page["limit"]), (&json!([first]), &json!(1)));
    let rest = format!("{path}?cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(bench.get(account, &rest).await.body["data"], json!([second]));
    let listed = bench.get(account, &format!("/api/jobs/{common}/deliveries")).await.body;
    assert_eq!(listed["data"][0]["url"], Value::Null, "the account's, as it is when it is sent");

    assert_refused(&bench.get(other, &path).await, 404, "not_found");
    let nobody = format!("/api/jobs/{}/deliveries", Uuid::new_v4());
    assert_refused(&bench.get(account, &nobody).await, 404, "not_found");
    assert_refused(&bench.get(account, &format!("{path}?cursor=1")).await, 400, "invalid_cursor");
    assert_refused(&bench.get(account, &format!("{path}?before=1")).await, 400, "unknown_parameter");
    let operator = bench.service_token("operator", &["operate"]).await;
    let granter = bench.service_token("payments", &["grant"]).await;
    assert_eq!(as_service(&bench, &operator, "GET", &path, None).await.status, 200);
    assert_eq!(code(&as_service(&bench, &granter, "GET", &path, None).await), (403, "forbidden"));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

/// A bad token never reaches a look-up: who is calling is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_before_anything_is_looked_at() {
    let bench = deployed().await;
    let token = bearer(Uuid::nil());
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let body = json!({ "url": "https://127.1/" }).to_string();
    let put = bench.request(event("PUT", "/api/webhook", &headers, Some(&body))).await;
    assert_refused(&put, 401, "unauthorized");
}
