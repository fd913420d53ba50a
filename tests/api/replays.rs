//! What a key stands for: the same request however it is spelled, and no other.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::limit,
    support::{Bench, bearer, event},
};

/// Sends a body as it stands there.
async fn post(bench: &Bench, account: Uuid, path: &str, body: &str, key: &str) -> (u64, Value) {
    let token = bearer(account);
    let headers =
        [("authorization", token.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
    let answer = bench.request(event("POST", path, &headers, Some(body))).await;
    (answer.status, answer.body["code"].clone())
}

/// Inputs, and whether the second is the first, spelled otherwise.
const PAIRS: &[(&str, &str, bool)] = &[
    (r#"{"a":1,"b":[true,null,"x"]}"#, "{ \"b\" : [ true,\n null,\t\"x\" ] , \"a\":1 }", true),
    (r#"{"a":1e308,"b":[-1.5E-7,2e9]}"#, r#"{"b": [ -1.5E-7 , 2e9 ], "a": 1e308}"#, true),
    ("1e308", " 1e308 ", true),
    (r#"{"a":"é\/","b":0}"#, r#"{"b":0,"a":"\u00e9/"}"#, true),
    (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true),
    (r#"["1e308 , 5e7", 1e308]"#, r#"["1e308 , 5e7", 1e308]"#, true),
    (r#"[1e-20000, "x"]"#, r#"[1e-20000, "x"]"#, true),
    (r#"[1,2]"#, r#"[2,1]"#, false),
    // Numbers count as they are written.
    ("[1e308]", "[1e+308]", false),
    ("[1e308]", "[1E308]", false),
    ("[1e2]", "[100]", false),
    ("[1.0]", "[1.00]", false),
    ("[1.0]", "[1]", false),
    ("[1e308]", r#"["1e308"]"#, false),
    ("[1e308]", "[1e307]", false),
    (r#"[{"a":1e5},{"b":1}]"#, r#"[{"a":1},{"b":1e5}]"#, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_its_input_however_that_is_spelled() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    for (n, (first, second, same)) in PAIRS.iter().enumerate() {
        let expected = if *same { (200, Value::Null) } else { (422, json!("idempotency_mismatch")) };
        for (path, body) in [
            (
                "/api/jobs",
                (|input: &str| format!(r#"{{"kind":"free","input":{input}}}"#)) as fn(&str) -> String,
            ),
            ("/api/jobs:batch", |input: &str| {
                format!(r#"{{"jobs":[{{"kind":"free"}},{{"input":{input},"kind":"free"}}]}}"#)
            }),
        ] {
            let key = format!("{path} {n}");
            assert_eq!(post(&bench, account, path, &body(first), &key).await.0, 202, "{path} {first}");
            assert_eq!(post(&bench, account, path, &body(first), &key).await.0, 200, "{path} {first}, again");
            assert_eq!(
                post(&bench, account, path, &body(second), &key).await,
                expected,
                "{path} {first} {second}"
            );
        }
        // Whoever asks for it, by whichever way: SQL is told the same.
        bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'free', '{second}', 'sql {n}')")).await;
        let body = format!(r#"{{"kind":"free","input":{first}}}"#);
        assert_eq!(
            post(&bench, account, "/api/jobs", &body, &format!("sql {n}")).await,
            expected,
            "{first} {second}"
        );
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_another_one_if_any_job_of_it_is() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let jobs = |jobs: &[&str]| format!(r#"{{"jobs":[{}]}}"#, jobs.join(","));
    let first = [
        r#"{"kind":"free","input":1,"tags":["a","b"],"metadata":{"x":"1"}}"#,
        r#"{"kind":"free","priority":1}"#,
    ];
    assert_eq!(post(&bench, account, "/api/jobs:batch", &jobs(&first), "k").await.0, 202);
    let spelled = [
        r#"{"metadata" : {"x":"1"}, "tags":["b","a"], "input": 1, "kind":"free"}"#,
        r#"{"priority":1,"kind":"free"}"#,
    ];
    assert_eq!(post(&bench, account, "/api/jobs:batch", &jobs(&spelled), "k").await.0, 200);
    for other in [
        [first[1], first[0]],
        [first[0], first[0]],
        [first[0], r#"{"kind":"free","priority":2}"#],
        [first[0], r#"{"kind":"qr.svg","priority":1}"#],
        [r#"{"kind":"free","input":1,"tags":["a"],"metadata":{"x":"1"}}"#, first[1]],
        [r#"{"kind":"free","input":1,"tags":["a","b"],"metadata":{"x":"2"}}"#, first[1]],
    ] {
        let expected = (422, json!("idempotency_mismatch"));
        assert_eq!(post(&bench, account, "/api/jobs:batch", &jobs(&other), "k").await, expected, "{other:?}");
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bought_answers_though_nothing_more_could_be() {
    let bench = Bench::new().await;
    let account = bench.account(2).await;
    let input = json!("x".repeat(60_000)).to_string();
    let job = format!(r#"{{"kind":"qr.svg","input":{input}}}"#);
    let batch = format!(r#"{{"jobs":[{job}]}}"#);
    let both = async || {
        [
            post(&bench, account, "/api/jobs", &job, "one").await.0,
            post(&bench, account, "/api/jobs:batch", &batch, "many").await.0,
        ]
    };
    assert_eq!(both().await, [202, 202]);
    assert_eq!(bench.balance(account).await, (0, 2));
    assert_eq!(both().await, [200, 200], "without credits");
    limit(&bench, account, ["1", "1", "1"]);
    assert_eq!(both().await, [200, 200], "over the limits");
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'qr.svg'").await;
    assert_eq!(both().await, [200, 200], "of a kind that is sold no more");
    bench.assert_audit_is_clean().await;
}
