//! `POST /api/jobs`.

use futures_util::future::join_all;
use local::lambda::Function;
use serde_json::json;

use crate::support::{
    Bench, bearer, binary, environment, event,
    wire::{Fault, Wire},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_accepted_and_its_price_held() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let answer = bench.post(account, json!({ "kind": "echo.http", "input": { "a": 1 } }), None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/api/jobs/{id}"));
    assert_eq!(answer.body["status"], "queued");
    assert_eq!(
        answer.body["credits"],
        json!({ "price": 10, "held": 10, "captured": 0, "released": 0, "refunded": 0 })
    );
    assert_eq!(bench.balance(account).await, (90, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_posts_spend_each_credit_once() {
    let bench = Bench::new().await;
    let account = bench.account(500).await;
    let posts = (0..100).map(|_| bench.post(account, json!({ "kind": "echo.http" }), None));
    let statuses: Vec<u64> = join_all(posts).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 50);
    assert_eq!(bench.balance(account).await, (0, 500));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 50);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_fifty_times_in_parallel_makes_one_job_and_one_hold() {
    let bench = Bench::new().await;
    let account = bench.account(500).await;
    let posts =
        (0..50).map(|_| bench.post(account, json!({ "kind": "echo.http", "input": { "x": 1 } }), Some("k")));
    let answers = join_all(posts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 1);
    let replays: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(replays.len(), 49);
    assert!(replays.iter().all(|answer| answer.headers["idempotent-replayed"] == "true"));
    assert!(answers.iter().all(|answer| answer.body["id"] == answers[0].body["id"]));
    assert_eq!(bench.balance(account).await, (490, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_accounts_own_and_for_one_request_only() {
    let bench = Bench::new().await;
    let (one, other) = (bench.account(100).await, bench.account(100).await);
    assert_eq!(
        bench.post(one, json!({ "kind": "echo.http", "input": { "a": 1, "b": 2 } }), Some("k")).await.status,
        202
    );
    let same = bench.post(one, json!({ "kind": "echo.http", "input": { "b": 2, "a": 1 } }), Some("k")).await;
    assert_eq!(same.status, 200, "the order of keys does not make another request");
    let differs = bench.post(one, json!({ "kind": "echo.http", "input": { "a": 2 } }), Some("k")).await;
    assert_eq!((differs.status, &differs.body["code"]), (422, &json!("idempotency_mismatch")));
    assert_eq!(bench.post(other, json!({ "kind": "echo.http" }), Some("k")).await.status, 202);
    assert_eq!(bench.balance(one).await, (90, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_no_key_and_no_row() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    let refused = bench.post(account, json!({ "kind": "echo.http" }), Some("k")).await;
    assert_eq!((refused.status, &refused.body["code"]), (402, &json!("insufficient_credits")));
    assert_eq!((&refused.body["required"], &refused.body["available"]), (&json!(10), &json!(0)));
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);
    bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 10, 'later')")).await;
    assert_eq!(bench.post(account, json!({ "kind": "echo.http" }), Some("k")).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_get_their_answer_and_change_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    let deep = format!(r#"{{"kind":"free","input":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let large = json!({ "kind": "free", "input": "x".repeat(65_535) }).to_string(); // 65,537 bytes with its quotes
    let huge = format!(r#"{{"kind":"free","input":"{}"}}"#, "x".repeat(200_000));
    let long_kind = json!({ "kind": "k".repeat(300) }).to_string();
    let cases: &[(&str, u64, &str)] = &[
        ("", 400, "body_required"),
        ("null", 400, "not_an_object"),
        ("[]", 400, "not_an_object"),
        (r#""x""#, 400, "not_an_object"),
        ("5", 400, "not_an_object"),
        (r#"{"kind":"free""#, 400, "invalid_json"),
        (r#"{"kind":"free"} x"#, 400, "invalid_json"),
        ("\u{feff}{\"kind\":\"free\"}", 400, "invalid_json"),
        (r#"{"kind":"free","input":"\u0000"}"#, 422, "nul_character"),
        (r#"{"kind":"free","input":{"\u0000":1}}"#, 422, "nul_character"),
        (&deep, 400, "too_deep"),
        (r#"{"kind":"free","input":1e400}"#, 400, "invalid_json"),
        (r#"{"kind":"free","input":1e200000}"#, 400, "invalid_json"),
        (r#"{"kind":"free","input":NaN}"#, 400, "invalid_json"),
        (r#"{"kind":"free","input":Infinity}"#, 400, "invalid_json"),
        (r#"{"kind":"free","input":"\ud800"}"#, 400, "invalid_json"),
        (r#"{"kind":"free","priority":11}"#, 422, "invalid_priority"),
        (r#"{"kind":"free","priority":-11}"#, 422, "invalid_priority"),
        (r#"{"kind":"free","priority":99999}"#, 422, "invalid_priority"),
        (r#"{"kind":"free","priority":9223372036854775808}"#, 400, "invalid_field"),
        (r#"{"kind":"free","priority":1.0}"#, 400, "invalid_field"),
        (r#"{"kind":"free","priority":1e3}"#, 400, "invalid_field"),
        (r#"{"kind":"free","priority":"1"}"#, 400, "invalid_field"),
        (r#"{"kind":"free","run_at":"2999-01-01T00:00:00Z"}"#, 422, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"9999-12-31T23:59:59Z"}"#, 422, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"300000-01-01T00:00:00Z"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"infinity"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-11-24T10:00:00"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-11-24T10:00:00 Mars/Base"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-11-24 10:00:00Z"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2016-12-31T23:59:60Z"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-11-24T24:00:00Z"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-11-24T10:00:00-00:00"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":"2026-02-30T10:00:00Z"}"#, 400, "invalid_run_at"),
        (r#"{"kind":"free","run_at":1795478400}"#, 400, "invalid_field"),
        (r#"{"kind":"free","kind":"free"}"#, 400, "duplicate_field"),
        (r#"{"kind":"free","price":0}"#, 400, "unknown_field"),
        (r#"{"kind":"free","status":"succeeded"}"#, 400, "unknown_field"),
        (r#"{"kind":"free","account_id":"00000000-0000-0000-0000-000000000001"}"#, 400, "unknown_field"),
        (r#"{"kind":5}"#, 400, "invalid_field"),
        ("{}", 400, "invalid_field"),
        (r#"{"kind":"no.such"}"#, 422, "unknown_kind"),
        (r#"{"kind":"../free"}"#, 422, "unknown_kind"),
        (r#"{"kind":"free "}"#, 422, "unknown_kind"),
        (r#"{"kind":"fr\u0435e"}"#, 422, "unknown_kind"),
        (&long_kind, 422, "unknown_kind"),
        (&large, 413, "too_large"),
        (&huge, 413, "too_large"),
    ];
    let token = bearer(account);
    for (body, status, code) in cases {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let answer = bench.request(event("POST", "/api/jobs", &headers, Some(body))).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!((answer.status, &answer.body["code"]), (*status, &json!(code)), "{shown}");
    }
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);
    assert_eq!(bench.balance(account).await, (1_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_comes_back_digit_for_digit() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json; charset=utf-8")];
    let body = r#"{"kind":"free","input":{"n":123456789012345678901234567890,"d":1.10,"sql":"'; DROP TABLE jobs; --"}}"#;
    let answer = bench.api.invoke(&event("POST", "/api/jobs", &headers, Some(body))).await.unwrap();
    assert_eq!(answer["statusCode"], 202);
    let text = answer["body"].as_str().unwrap();
    assert!(
        text.contains(r#"{"n":123456789012345678901234567890,"d":1.10,"sql":"'; DROP TABLE jobs; --"}"#),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_media_types_and_keys_and_encodings_are_refused() {
    let bench = Bench::new().await;
    let token = bearer(bench.account(0).await);
    for media in [
        "",
        "text/plain",
        "multipart/form-data",
        "application/xml",
        "application/vnd.api+json",
        "application/x-www-form-urlencoded",
    ] {
        let headers = [("authorization", token.as_str()), ("content-type", media)];
        let answer = bench.request(event("POST", "/api/jobs", &headers, Some(r#"{"kind":"free"}"#))).await;
        assert_eq!(answer.status, 415, "{media}");
    }
    let long = "k".repeat(129);
    for key in ["", &long, "a,b", "caf\u{e9}", "tab\tbed"] {
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        let answer = bench.request(event("POST", "/api/jobs", &headers, Some(r#"{"kind":"free"}"#))).await;
        assert_eq!(answer.status, 400, "{key}");
    }
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    for (body, status) in [("eyJraW5kIjoiZnJlZSJ9", 202), ("eyJraW5kIjoiZnJlZSJ", 400), ("!!", 400)] {
        let mut event = event("POST", "/api/jobs", &headers, Some(body));
        event["isBase64Encoded"] = json!(true);
        assert_eq!(bench.request(event).await.status, status, "{body}");
    }
    // What is no HTTP request at all fails the invocation: nobody may take it for a success.
    assert!(bench.api.invoke(&json!({ "Records": [] })).await.is_err());
    assert!(bench.api.invoke(&json!({ "source": "aws.scheduler" })).await.is_err());
    let first_format = json!({ "version": "1.0", "httpMethod": "GET", "path": "/api/health" });
    assert_eq!(bench.request(first_format).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_answer_is_503_and_says_when_to_come_back() {
    let api = local::lambda::Function::new(
        crate::support::binary("api"),
        vec![("DATABASE_URL".into(), "postgres://nobody:x@127.0.0.1:9/none".into())],
    );
    let answer = api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap();
    assert_eq!(answer["statusCode"], 503);
    assert_eq!(answer["headers"]["retry-after"], "5");
    assert!(!answer["body"].as_str().unwrap().contains("127.0.0.1"), "nothing of ours is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_unknown_is_found_out_by_the_key() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url));
    let post = |key: Option<&str>| {
        let token = bearer(account);
        let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        event("POST", "/api/jobs", &headers, Some(r#"{"kind":"echo.http"}"#))
    };
    // The job is queued and the answer lost. With a key, the statement is sent again and answers that job.
    wire.fault("-- enqueue", Fault::Cut);
    assert_eq!(api.invoke(&post(Some("k"))).await.unwrap()["statusCode"], 200);
    assert_eq!(bench.balance(account).await, (90, 10));
    // Without one it must not be sent again: the caller is told.
    wire.fault("-- enqueue", Fault::Cut);
    let unknown = api.invoke(&post(None)).await.unwrap();
    assert_eq!((&unknown["statusCode"], &unknown["headers"]["retry-after"]), (&json!(503), &json!("5")));
    assert!(unknown["body"].as_str().unwrap().contains("outcome_unknown"), "{unknown}");
    assert_eq!(bench.balance(account).await, (80, 20));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_caller_sends_makes_a_log_line_of_its_own() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let forged = "\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    for body in [
        json!({ "kind": format!("free{forged}") }),
        json!({ "kind": "free", "input": forged }),
        json!({ "kind": "free", forged: 1 }),
    ] {
        bench.request(event("POST", "/api/jobs", &headers, Some(&body.to_string()))).await;
    }
    bench.request(event("GET", &format!("/api/jobs?cursor={forged}"), &headers, None)).await;
    bench.request(event("GET", &format!("/api/{forged}"), &headers, None)).await;
    let poller = bench.poller();
    poller.invoke(&json!({ "source": forged })).await.unwrap();
    for line in (bench.api.logs().await + &poller.logs().await).lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_ne!(line["message"], "forged");
        assert!(!line.to_string().contains(&token), "no token is logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_never_refused_for_want_of_credits() {
    let bench = Bench::new().await;
    for round in 0..10 {
        let account = bench.account(10).await; // for one job
        let posts =
            (0..12).map(|_| bench.post(account, json!({ "kind": "echo.http", "input": round }), Some("k")));
        let statuses: Vec<u64> = join_all(posts).await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 11, "{statuses:?}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_of_64_kib_null_or_odd_numbers_is_taken_as_it_is() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    let full = format!("\"{}\"", "x".repeat(65_534));
    for (number, input) in
        [full.as_str(), "null", "1e-20000", "[1.10, 2]", r#"{"b":1,"a":1}"#].iter().enumerate()
    {
        let token = bearer(account);
        let key = format!("k{number}");
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", &key),
        ];
        let body = format!(r#"{{"kind":"free","input":{input}}}"#);
        for status in [202, 200] {
            let answer = bench.api.invoke(&event("POST", "/api/jobs", &headers, Some(&body))).await.unwrap();
            assert_eq!(answer["statusCode"], status, "{answer}");
            assert!(answer["body"].as_str().unwrap().contains(&format!("\"input\":{input}")), "{answer}");
        }
    }
    let none = bench.post(account, json!({ "kind": "free" }), None).await;
    assert_eq!(none.body["input"], json!({}));
    // A page shows every input and output as it was written, also what our own reader could not take.
    bench
        .sql(&format!(
            "SELECT punchcard.enqueue('{account}', 'free', '[1e400, 1.10, 123456789012345678901234567890]')"
        ))
        .await;
    let list = event(
        "GET",
        "/api/jobs?limit=100&include=input,output",
        &[("authorization", &bearer(account))],
        None,
    );
    let page = bench.api.invoke(&list).await.unwrap();
    let page = page["body"].as_str().unwrap();
    assert!(page.contains("[1e400, 1.10, 123456789012345678901234567890]"));
    assert!(page.contains("\"input\":1e-20000") && page.contains("\"input\":{\"b\":1,\"a\":1}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pooler_says_of_a_lost_server_is_not_taken_for_nothing_done() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url));
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let post = event("POST", "/api/jobs", &headers, Some(r#"{"kind":"echo.http"}"#));
    for code in ["08P01", "57P01", "58000", "XX000"] {
        wire.fault("-- enqueue", Fault::Instead(code));
        let answer = api.invoke(&post).await.unwrap();
        assert!(answer["body"].as_str().unwrap().contains("outcome_unknown"), "{code}: {answer}");
    }
    assert_eq!(bench.balance(account).await, (60, 40), "each was done once, and none again");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_busy_or_full_is_503_and_nothing_is_done() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench
        .sql(&format!(
            "ALTER ROLE punchcard_app IN DATABASE {} SET statement_timeout = '300ms'",
            bench.database
        ))
        .await;
    let api = Function::new(binary("api"), environment(&bench.url));
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let post = event("POST", "/api/jobs", &headers, Some(r#"{"kind":"echo.http"}"#));
    let blocker = crate::support::connect(&bench.direct_url).await;
    blocker
        .batch_execute("SET statement_timeout = 0; BEGIN; LOCK punchcard.queue IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let answer = api.invoke(&post).await.unwrap();
    assert_eq!((&answer["statusCode"], &answer["headers"]["retry-after"]), (&json!(503), &json!("5")));
    assert!(answer["body"].as_str().unwrap().contains("\"unavailable\""), "{answer}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(bench.balance(account).await, (100, 0));
    assert_eq!(api.invoke(&post).await.unwrap()["statusCode"], 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_where_it_stands_all_of_it_at_once() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let token = crate::support::bearer(account);
    let ask = async |path: &str, body: &str| {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let answer = bench.request(event("POST", path, &headers, Some(body))).await;
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.body);
        assert_eq!(answer.headers["request-id"], answer.body["request_id"]);
        let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
        let said =
            |error: &serde_json::Value, member: &str| error[member].as_str().unwrap_or_default().to_owned();
        assert!(errors.is_empty() || said(&errors[0], "code") == answer.body["code"], "{}", answer.body);
        errors
            .iter()
            .map(|error| format!("{} {}", said(error, "code"), said(error, "pointer")))
            .collect::<Vec<_>>()
    };
    for (body, expected) in [
        (r#"{"kind":5}"#, &["invalid_field #/kind"][..]),
        ("{}", &["invalid_field #/kind"]),
        (r#"{"kind":"free","price":0}"#, &["unknown_field #/price"]),
        (r#"{"kind":"free","pri/ce~":0}"#, &["unknown_field #/pri~1ce~0"]),
        (r#"{"kind":"free","kind":"free"}"#, &["duplicate_field #/kind"]),
        (r#"{"kind":"free","retry":{"max_attempts":"x"}}"#, &["invalid_field #/retry/max_attempts"]),
        (r#"{"kind":"free","retry":{"most":1}}"#, &["unknown_field #/retry/most"]),
        (
            r#"{"kind":"free","webhook":{"url":"https://example.com/","events":["job.done"]}}"#,
            &["invalid_webhook #/webhook/events"],
        ),
        (r#"{"kind":"free","webhook":{"url":"ftp://example.com/"}}"#, &["invalid_webhook #/webhook/url"]),
        (r#"{"kind":"no.such"}"#, &["unknown_kind #/kind"]),
        (r#"{"kind":"free","run_at":"2999-01-01T00:00:00Z"}"#, &["invalid_run_at #/run_at"]),
        (r#"{"kind":"free","tags":["a b"]}"#, &["invalid_tags #/tags"]),
        (
            r##"{"kind":"NO","priority":11,"run_at":"tomorrow","webhook":{"url":"#"}}"##,
            &[
                "unknown_kind #/kind",
                "invalid_priority #/priority",
                "invalid_run_at #/run_at",
                "invalid_webhook #/webhook/url",
            ],
        ),
        ("[]", &["not_an_object #"]),
        ("{", &["invalid_json #"]),
        ("", &["body_required #"]),
        (r#"{"kind":"qr.svg","a`b":1}"#, &["unknown_field #/a`b"]),
        (r#"{"kind":"free","retry":{"backoff":"a`kind`b"}}"#, &["invalid_field #/retry/backoff"]),
        (r#"{"kind":"free","metadata":{"a":"x","a":"y"}}"#, &["duplicate_field #/metadata/a"]),
    ] {
        assert_eq!(ask("/api/jobs", body).await, expected, "{body}");
    }
    let batch =
        r#"{"jobs":[{"kind":"free"},{"kind":"NO","priority":11},{"kind":"free","input":1,"price":2},5]}"#;
    assert_eq!(
        ask("/api/jobs:batch", batch).await,
        [
            "unknown_kind #/jobs/1/kind",
            "invalid_priority #/jobs/1/priority",
            "unknown_field #/jobs/2/price",
            "invalid_field #/jobs/3"
        ]
    );
    assert_eq!(
        ask("/api/jobs:batch", r#"{"jobs":[{"kind":"free"},{"kind":"no.such"}]}"#).await,
        ["unknown_kind #/jobs/1/kind"],
        "which the database says"
    );
    assert_eq!(
        ask("/api/jobs:batch", r#"{"jobs":[{"kind":"free"},{"kind":"free","tags":["a b"]}]}"#).await,
        ["invalid_tags #/jobs"],
        "which job, the database does not say"
    );
    let many = json!({ "jobs": vec![json!({ "kind": "NO", "priority": 11 }); 20] }).to_string();
    assert_eq!(ask("/api/jobs:batch", &many).await.len(), 10);
    assert_eq!(ask("/api/jobs?x=1", r#"{"kind":"free"}"#).await, ["unknown_parameter "]);
    let unknown = bench.post(account, json!({ "kind": "free", "price": 0 }), None).await;
    let allowed = unknown.body["errors"][0]["allowed"].as_array().unwrap();
    assert!(allowed.contains(&json!("priority")) && allowed.len() == 8, "{allowed:?}");
    let long = bench.post(account, json!({ "kind": "free", ("x".repeat(400)): 0 }), None).await;
    let error = &long.body["errors"][0];
    assert_eq!(error["pointer"].as_str().unwrap().matches('/').count(), 1, "{error}");
    assert_eq!(error["allowed"].as_array().unwrap().len(), 8, "all of them");
    let largest = json!({
        "kind": "free", "input": "x".repeat(65_000),
        "metadata": (0..16).map(|n| (format!("{n:064}"), json!("v".repeat(512)))).collect::<serde_json::Map<_, _>>(),
    });
    assert_eq!(bench.post(account, largest, None).await.status, 202, "all that a job may have fits");
    assert_eq!(bench.balance(account).await, (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_quotes_is_the_key_without_them() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    let bare = bench.post(account, job.clone(), Some("8e03978e-40d5")).await;
    let quoted = bench.post(account, job.clone(), Some("\"8e03978e-40d5\"")).await;
    assert_eq!((bare.status, quoted.status), (202, 200), "{}", quoted.body);
    assert_eq!(quoted.body["id"], bare.body["id"]);
    assert_eq!(bench.balance(account).await, (9, 1), "one charge");
    for bare in ["it's \\x20", "a\"b", "{\"a\":1}"] {
        assert_eq!(bench.post(account, job.clone(), Some(bare)).await.status, 202, "{bare}");
        assert_eq!(bench.post(account, job.clone(), Some(bare)).await.status, 200, "{bare}");
    }
    for bad in
        ["\"", "\"\"", "\"a", "a\"", "\"a\"b\"", "\"\"a\"\"", "\"a\\b\"", "\"a\\\"b\"", "\" a\"", "\"a,b\""]
    {
        let refused = bench.post(account, job.clone(), Some(bad)).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (400, &json!("invalid_idempotency_key")),
            "{bad}"
        );
        assert_eq!(refused.body["errors"][0]["header"], "Idempotency-Key");
    }
    bench.assert_audit_is_clean().await;
}
