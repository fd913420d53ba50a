//! Events as API Gateway sends them, and as it might: stages and base paths, members that nobody uses, headers that cannot be.

use local::lambda::Function;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, bearer, binary, environment, event};

/// An API that is reached from outside at this URL.
fn api_at(bench: &Bench, public_url: &str) -> Function {
    let mut env = environment(&bench.url);
    env.retain(|(name, _)| name != "PUBLIC_URL");
    env.push(("PUBLIC_URL".into(), public_url.into()));
    Function::new(binary("api"), env)
}

async fn answer(api: &Function, event: &Value) -> Answer {
    let answer = api.invoke(event).await.unwrap_or_else(|error| panic!("{event}: {error}"));
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap_or_default();
    Answer { status: answer["statusCode"].as_u64().unwrap(), headers: answer["headers"].clone(), body }
}

/// The same event behind a prefix, on a stage.
fn behind(mut event: Value, prefix: &str, stage: &str) -> Value {
    let path = format!("{prefix}{}", event["rawPath"].as_str().unwrap());
    event["requestContext"]["http"]["path"] = json!(path);
    event["requestContext"]["stage"] = json!(stage);
    event["rawPath"] = json!(path);
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_or_a_base_path_leads_to_the_api_and_its_answers_lead_back() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let mapped = api_at(&bench, "https://jobs.example.com/v1/");
    let buy = event("POST", "/api/jobs", &headers, Some(r#"{"kind":"qr.svg","input":{"text":"t"}}"#));
    for (api, prefix, stage) in [
        (&bench.api, "", "$default"),
        (&bench.api, "/prod", "prod"),
        (&bench.api, "", "prod"),
        (&mapped, "/v1", "$default"),
        (&mapped, "/v1", "prod"),
        (&mapped, "/prod", "prod"),
    ] {
        let bought = answer(api, &behind(buy.clone(), prefix, stage)).await;
        assert_eq!(bought.status, 202, "{prefix} {stage}: {}", bought.body);
        let location = bought.headers["location"].as_str().unwrap();
        let own = location.strip_prefix(prefix).unwrap_or_else(|| panic!("{prefix} {stage}: {location}"));
        assert_eq!(own, format!("/api/jobs/{}", bought.body["id"].as_str().unwrap()));
        let shown = answer(api, &behind(event("GET", own, &headers, None), prefix, stage)).await;
        assert_eq!((shown.status, &shown.body["id"]), (200, &bought.body["id"]), "{prefix} {stage}");
        let canceled = behind(event("POST", &format!("{own}/cancel"), &headers, None), prefix, stage);
        assert_eq!(answer(api, &canceled).await.status, 200);
        let retried =
            answer(api, &behind(event("POST", &format!("{own}/retry"), &headers, None), prefix, stage)).await;
        assert_eq!(retried.status, 202, "{}", retried.body);
        assert!(retried.headers["location"].as_str().unwrap().starts_with(&format!("{prefix}/api/jobs/")));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_the_apis_is_logged_without_what_may_be_secret() {
    let bench = Bench::new().await;
    let secret = "s".repeat(60);
    let query = "token=hidden";
    for (path, stage) in [("/v1/api/jobs", "$default"), ("/v1/api/jobs", "prod"), ("/prod/jobs", "prod")] {
        let lost = behind(event("GET", &format!("{path}/{secret}?{query}"), &[], None), "", stage);
        assert_eq!(answer(&bench.api, &lost).await.status, 404);
        let logs = bench.api.logs().await;
        let line = logs.lines().rfind(|line| line.contains(r#""message":"no route""#)).expect("a line");
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&line["level"], &line["method"]), (&json!("WARN"), &json!("GET")));
        assert_eq!(line["path"], format!("{path}/…"));
        assert!(!logs.contains(&secret) && !logs.contains("hidden"), "{logs}");
    }
    // A job that is not there is no path that is not.
    let before = bench.api.logs().await.matches("no route").count();
    assert_eq!(bench.get(uuid::Uuid::new_v4(), "/api/jobs/7").await.status, 404);
    assert_eq!(bench.api.logs().await.matches("no route").count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_spoils_no_request() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let token = bearer(account);
    let get = |path: &str| event("GET", path, &[("authorization", &token)], None);
    let with = |pointer: &str, value: Value| {
        let mut event = get("/api/jobs?limit=5");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[name] = value;
        event
    };
    let jwt = |claims: Value| json!({ "jwt": { "claims": claims, "scopes": null } });
    let odd = [
        ("/requestContext/authorizer", jwt(json!({ "exp": 1_795_478_400, "roles": ["a", "b"], "n": null }))),
        ("/requestContext/authorizer", jwt(json!([1]))),
        ("/requestContext/authorizer", json!({ "lambda": { "deep": [{ "a": 1.5 }] }, "iam": null })),
        ("/requestContext/authorizer", json!("none")),
        ("/requestContext/authentication", json!({ "clientCert": 7 })),
        ("/requestContext/timeEpoch", json!("soon")),
        ("/requestContext/time", json!(null)),
        ("/requestContext/http/sourceIp", json!(null)),
        ("/requestContext/http/protocol", json!(2)),
        ("/queryStringParameters", json!(null)),
        ("/queryStringParameters", json!({ "limit": null })),
        ("/isBase64Encoded", json!(null)),
        ("/cookies", json!(null)),
        ("/cookies", json!({ "a": "b" })),
        ("/stageVariables", json!({ "a": null, "b": 1 })),
        ("/pathParameters", json!({ "proxy": null })),
        ("/multiValueHeaders", json!({ "accept": ["a", null] })),
        ("/headers/x-strange", json!("\u{0}\u{7}")),
        ("/headers/x-number", json!(7)),
        ("/headers/bad name", json!("x")),
        ("/headers/x-long", json!("é")),
        ("/body", json!("")),
        ("/routeKey", json!(null)),
    ];
    for (pointer, value) in odd {
        let answer = bench.request(with(pointer, value.clone())).await;
        assert_eq!(answer.status, 200, "{pointer} {value}: {}", answer.body);
    }
    for name in ["cookies", "pathParameters", "queryStringParameters", "isBase64Encoded", "routeKey"] {
        let mut event = get("/api/credits");
        event.as_object_mut().unwrap().remove(name);
        assert_eq!(bench.request(event).await.status, 200, "{name}");
    }
    let mut bare = get("/api/credits");
    let http = bare["requestContext"]["http"].clone();
    bare["requestContext"] = json!({ "http": { "method": http["method"] } });
    assert_eq!(bench.request(bare).await.status, 200);
    let mut nobody = get("/api/credits");
    nobody.as_object_mut().unwrap().remove("headers");
    assert_eq!(bench.request(nobody).await.status, 401);
    for (pointer, value) in [
        ("/requestContext", json!(null)),
        ("/requestContext/http", json!(null)),
        ("/requestContext/http/method", json!(7)),
        ("/version", json!("1.0")),
        ("/version", json!(null)),
        ("/body", json!(7)),
    ] {
        let answer = bench.request(with(pointer, value)).await;
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.body);
    }
    let logs = bench.api.logs().await;
    assert!(!logs.contains("panicked") && !logs.contains("\"ERROR\""), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_cannot_be_is_refused_where_it_is_used_and_never_logged() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let spoiled = format!("{}\u{7}secret", bearer(account));
    let answer = bench.request(event("GET", "/api/credits", &[("authorization", &spoiled)], None)).await;
    assert_eq!((answer.status, &answer.headers["www-authenticate"]), (401, &json!("Bearer")));
    let token = bearer(account);
    let key = "order\u{7}secret";
    let headers =
        [("authorization", token.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
    let answer = bench.request(event("POST", "/api/jobs", &headers, Some(r#"{"kind":"free"}"#))).await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_idempotency_key")));
    let headers = [("authorization", token.as_str()), ("content-type", "application/json\u{7}secret")];
    let answer = bench.request(event("POST", "/api/jobs", &headers, Some(r#"{"kind":"free"}"#))).await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_header")));
    let headers =
        [("authorization", token.as_str()), ("prefer", "wait=1\u{7}secret"), ("if-none-match", "\u{7}")];
    let answer = bench.request(event("GET", "/api/credits", &headers, None)).await;
    assert_eq!(answer.status, 200, "nobody looks at these here");
    let logs = bench.api.logs().await;
    assert!(!logs.contains("secret") && !logs.contains(token.rsplit('.').next().unwrap()), "{logs}");
    bench.assert_audit_is_clean().await;
}
