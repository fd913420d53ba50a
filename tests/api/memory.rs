//! What a request may need of the function's memory, whatever is sent: a Lambda of 128 MB answers it.
#![cfg(target_os = "linux")]

use base64::{Engine, engine::general_purpose::STANDARD};
use local::lambda::Function;
use serde_json::{Value, json};
use shared::signing::callback_token;
use uuid::Uuid;

use crate::support::{Bench, SIGNING_SECRET, bearer, binary, environment, event};

/// What the process may have had resident, at its peak.
const MOST_MB: u64 = 100;

/// The API in one process that gets no more than a Lambda of 128 MB.
fn small(bench: &Bench) -> Function {
    Function::new(binary("api"), environment(&bench.url)).max_concurrency(1).memory(128)
}

/// What the process has had resident at most, in MB.
fn peak(api: &Function) -> u64 {
    let pids = api.pids();
    assert_eq!(pids.len(), 1, "the same process all along");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pids[0])).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") / 1024
}

/// So often the same, with a comma between each two.
fn list(count: usize, entry: &str) -> String {
    vec![entry; count].join(",")
}

/// So many, each another one.
fn each(count: usize, entry: impl Fn(usize) -> String) -> String {
    (0..count).map(entry).collect::<Vec<_>>().join(",")
}

/// Members that fill a body of so many bytes.
fn fillings(bytes: usize) -> Vec<(&'static str, String)> {
    vec![
        ("objects", format!(r#"{{"x":[{}]}}"#, list(bytes / 7 - 2, r#"{"":0}"#))),
        ("numbers", format!(r#"{{"x":[{}]}}"#, list(bytes / 2 - 4, "0"))),
        ("arrays", format!(r#"{{"x":[{}]}}"#, list(bytes / 3 - 4, "[]"))),
        ("names", format!("{{{}}}", each(bytes / 12, |n| format!("\"{n:07}\":0")))),
        ("escapes", format!(r#"{{"x":"{}"}}"#, r"\u0001".repeat(bytes / 6 - 2))),
        ("quotation marks", format!(r#"{{"x":"{}"}}"#, "\\\"".repeat(bytes / 3))),
        ("a name", format!(r#"{{"{}":0}}"#, "\u{1f980}".repeat(bytes / 4 - 4))),
        ("depth", format!(r#"{{"x":{}{}}}"#, "[".repeat(bytes / 2 - 4), "]".repeat(bytes / 2 - 4))),
        ("a text for a number", format!(r#"{{"reason":{{}},"amount":"{}"}}"#, "x".repeat(bytes - 40))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_batch_is_made_of_128_mb_are_enough() {
    const MOST: usize = 4 * 1024 * 1024;
    let bench = Bench::new().await;
    let account = bench.account(100_000).await;
    let api = small(&bench);
    let token = bearer(account);
    let post = async |name: &str, body: &str, base64: bool| {
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", name),
        ];
        let encoded = base64.then(|| STANDARD.encode(body));
        let mut event = event("POST", "/api/jobs:batch", &headers, Some(encoded.as_deref().unwrap_or(body)));
        event["isBase64Encoded"] = json!(base64);
        let answer = api.invoke(&event).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let peak = peak(&api);
        assert!(peak < MOST_MB, "{name}: {peak} MB");
        (answer["statusCode"].as_u64().unwrap(), answer["body"].as_str().unwrap().to_owned())
    };
    let jobs = |count: usize, job: &str| format!(r#"{{"jobs":[{}]}}"#, list(count, job));

    for (name, body) in fillings(MOST) {
        let (status, said) = post(name, &body, false).await;
        assert_eq!(status, 400, "{name}: {said}");
        assert!(said.len() < 2_000, "{name}: {said}");
    }
    for (name, body) in [
        ("no jobs, and objects", format!(r#"{{"jobs":[],"x":[{}]}}"#, list(MOST / 7 - 4, r#"{"":0}"#))),
        ("numbers for jobs", jobs(MOST / 2 - 10, "1")),
        ("arrays for jobs", jobs(MOST / 3 - 10, "[]")),
        ("objects for jobs", jobs(MOST / 3 - 10, "{}")),
        (
            "one job of all",
            jobs(1, &format!(r#"{{"kind":"qr.svg","input":[{}]}}"#, list(MOST / 2 - 30, "0"))),
        ),
        ("tags", jobs(1_000, &format!(r#"{{"kind":"qr.svg","tags":[{}]}}"#, list(1_000, r#""a""#)))),
        (
            "many tags",
            jobs(1_000, &format!(r#"{{"kind":"qr.svg","tags":[{}]}}"#, each(500, |n| format!("\"{n}\"")))),
        ),
        (
            "metadata",
            jobs(
                1_000,
                &format!(r#"{{"kind":"qr.svg","metadata":{{{}}}}}"#, each(450, |n| format!("\"{n}\":\"\""))),
            ),
        ),
        (
            "delays",
            jobs(
                1_000,
                &format!(
                    r#"{{"kind":"qr.svg","retry":{{"backoff":"fixed","backoff_delays":[{}]}}}}"#,
                    list(2_000, "0")
                ),
            ),
        ),
        (
            "events",
            jobs(
                1_000,
                &format!(
                    r#"{{"kind":"qr.svg","webhook":{{"url":"https://example.com/","events":[{}]}}}}"#,
                    list(230, r#""job.failed""#)
                ),
            ),
        ),
    ] {
        let (status, said) = post(name, &body, false).await;
        // The same tag, or event, counts once, however often it stands there.
        let fine = ["tags", "events"].contains(&name);
        assert!(
            if fine { status == 202 } else { matches!(status, 400 | 413 | 422) },
            "{name}: {status} {said}"
        );
    }
    // As much as there may be: in each job, and in all of them.
    let job = |bytes: usize| format!(r#"{{"kind":"qr.svg","input":"{}"}}"#, "x".repeat(bytes));
    for (name, body) in [("full", jobs(1_000, &job(4_150))), ("large", jobs(63, &job(65_500)))] {
        for (base64, status) in [(false, 202), (true, 200)] {
            let (answered, said) = post(name, &body, base64).await;
            assert_eq!(answered, status, "{name}: {said}");
        }
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_any_route_is_sent_128_mb_are_enough() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let service = format!("Bearer {}", bench.service_token("all", &["enqueue", "grant", "operate"]).await);
    let api = small(&bench);
    let user = bearer(account);
    let id = Uuid::new_v4();
    let callback = format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, id, 1));
    let invoke = async |name: &str, event: Value| {
        let answer = api.invoke(&event).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let peak = peak(&api);
        assert!(peak < MOST_MB, "{name}: {peak} MB");
        let status = answer["statusCode"].as_u64().unwrap();
        assert!(status < 500, "{name}: {answer}");
        assert!(answer.to_string().len() < 500_000, "{name}: an answer as long as the request");
        status
    };

    let (cancel, retry) = (format!("/api/jobs/{id}/cancel"), format!("/api/jobs/{id}/retry"));
    for (method, path, token, limit) in [
        ("POST", "/api/jobs", &user, 80 * 1024),
        ("POST", &callback, &user, 1024 * 1024),
        ("POST", "/api/jobs:retry", &service, 80 * 1024),
        ("PUT", "/api/webhook", &user, 80 * 1024),
        ("POST", "/api/credits/grants", &service, 80 * 1024),
        ("POST", &cancel, &user, 0),
        ("POST", &retry, &user, 0),
        ("POST", "/api/webhook/rotate-secret", &user, 0),
    ] {
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        for (name, body) in fillings(limit.max(1_000)) {
            invoke(&format!("{method} {path}, {name}"), event(method, path, &headers, Some(&body))).await;
        }
        // More than is taken, as large as an event can be.
        let (body, quoted) = ("x".repeat(6_200_000), "\"".repeat(3_100_000));
        for body in [body, quoted] {
            let status =
                invoke(&format!("{method} {path}, all"), event(method, path, &headers, Some(&body))).await;
            assert!(limit == 0 || status == 413, "{path}: {status}");
        }
    }
    for (name, error) in [("objects", list(149_000, r#"{"":0}"#)), ("numbers", list(520_000, "0"))] {
        let body = format!(r#"{{"status":"failed","error":[{error}]}}"#);
        let status =
            invoke(name, event("POST", &callback, &[("content-type", "application/json")], Some(&body)))
                .await;
        assert_eq!(status, 400, "an error is a text or an object: {name}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_query_path_and_headers_are_128_mb_are_enough() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let api = small(&bench);
    let user = bearer(account);
    let get = |path: &str| event("GET", path, &[("authorization", &user)], None);
    let invoke = async |name: &str, event: Value| {
        let answer = api.invoke(&event).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let peak = peak(&api);
        assert!(peak < MOST_MB, "{name}: {peak} MB");
        let (status, length) = (answer["statusCode"].as_u64().unwrap(), answer.to_string().len());
        assert!(length < 10_000, "{name}: an answer of {length} bytes");
        status
    };
    let long = "x".repeat(2_900_000);
    for (name, parameters, expected) in [
        ("parameters", (0..400_000).map(|n| (format!("{n}"), json!(""))).collect::<Value>(), 400),
        ("a parameter", json!({ (long.clone()): "" }), 400),
        ("odd characters", json!({ ("\u{1}".repeat(500_000)): "" }), 400),
        ("metadata", (0..200_000).map(|n| (format!("metadata.{n}"), json!(""))).collect::<Value>(), 400),
        ("labels", json!({ "label": ",".repeat(5_800_000) }), 200),
        ("a label", json!({ "label": long }), 200),
        ("statuses", json!({ "status": ",".repeat(5_800_000) }), 200),
        ("a cursor", json!({ "cursor": long }), 400),
        ("a limit", json!({ "limit": "1".repeat(5_800_000) }), 400),
        ("a kind", json!({ "kind": "k".repeat(5_800_000) }), 400),
    ] {
        let mut event = get("/api/jobs");
        event["queryStringParameters"] = parameters;
        assert_eq!(invoke(name, event).await, expected, "{name}");
    }
    // What stands there several times is read as it was sent.
    for (name, query, expected) in [
        ("sent labels", "label=a&".repeat(700_000), 400),
        ("a sent label", format!("label={}", "%01".repeat(1_900_000)), 200),
        ("sent statuses", format!("status={}", ",".repeat(5_800_000)), 400),
        ("other parameters", "a&".repeat(2_900_000), 200),
    ] {
        let mut event = get("/api/jobs");
        event["rawQueryString"] = json!(query);
        assert_eq!(invoke(name, event).await, expected, "{name}");
    }
    for (name, headers, expected) in [
        ("headers", (0..10_000).map(|n| (format!("x-{n}"), json!("v".repeat(500)))).collect::<Value>(), 200),
        ("more headers than a map takes", (0..300_000).map(|n| (format!("x-{n}"), json!(""))).collect(), 200),
        ("wishes", json!({ "prefer": "a,".repeat(2_900_000) }), 200),
        ("tags of entities", json!({ "if-none-match": "\"a\",".repeat(1_000_000) }), 200),
    ] {
        let mut event = get("/api/credits");
        event["headers"] = headers;
        event["headers"]["authorization"] = json!(user);
        assert_eq!(invoke(name, event).await, expected, "{name}");
    }
    for (name, token) in
        [("a token", "x".repeat(5_800_000)), ("a service token", format!("pcs_{}", "x".repeat(5_800_000)))]
    {
        let event = event("GET", "/api/jobs", &[("authorization", &format!("Bearer {token}"))], None);
        assert_eq!(invoke(name, event).await, 401, "{name}");
    }
    let slashes = "/".repeat(2_900_000);
    for (name, path) in [("a path", format!("/api/jobs/{}", "x".repeat(2_900_000))), ("slashes", slashes)] {
        assert_eq!(invoke(name, get(&path)).await, 404, "{name}");
    }
    let path = format!("/api/callbacks/{}", "A".repeat(2_900_000));
    assert_eq!(invoke("a call back", event("POST", &path, &[], None)).await, 404);
}
