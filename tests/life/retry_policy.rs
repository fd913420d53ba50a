//! When a job is tried again: by its kind's policy or its own, and what spends an attempt.

use std::collections::BTreeSet;

use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_refused, credits};
use crate::support::{Bench, bearer, event};

async fn tick(worker: &Function) -> Value {
    worker.invoke(&json!({})).await.expect("a tick")
}

/// Buys a scripted job with a policy of its own.
async fn buy(bench: &Bench, account: Uuid, steps: Value, retry: Value) -> String {
    let body = json!({ "kind": "test.scripted", "input": { "script": steps }, "retry": retry });
    let answer = bench.post(account, body, None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// How long after its last run a job is due, by what it shows: to ten seconds, for the statements between.
async fn delay(bench: &Bench, account: Uuid, id: &str) -> i64 {
    let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
    let ended = runs["data"].as_array().unwrap().last().expect("a run")["ended_at"].clone();
    let run_at = bench.job(account, id).await["run_at"].clone();
    let (ended, run_at) = (ended.as_str().unwrap(), run_at.as_str().unwrap());
    let between = format!(
        "SELECT round(extract(epoch FROM '{run_at}'::timestamptz - '{ended}'::timestamptz) / 10)::bigint * 10"
    );
    bench.count(&between).await
}

/// The delays between the runs of a job that errs until it fails.
async fn delays(bench: &Bench, worker: &Function, account: Uuid, id: &str) -> Vec<i64> {
    let mut delays = Vec::new();
    for attempt in 1.. {
        tick(worker).await;
        let job = bench.job(account, id).await;
        assert_eq!((&job["attempt"], &job["crashes"]), (&json!(attempt), &json!(0)));
        assert_eq!(job["error"]["code"], "handler_error");
        if job["status"] == "failed" {
            assert_eq!((&job["max_attempts"], &job["credits"]), (&json!(attempt), &credits(0, 0, 10)));
            break;
        }
        assert_eq!((&job["status"], &job["credits"]), (&json!("queued"), &credits(10, 0, 0)));
        delays.push(delay(bench, account, id).await);
        assert_eq!(tick(worker).await["claimed"], 0, "not before it is due");
        bench.wait(1_000).await;
    }
    delays
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_grow_as_the_kind_says() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("max_attempts = 5, backoff_seconds = 100").await;
    let worker = bench.scripted_worker();
    for (policy, expected) in [
        ("backoff_max_seconds = 300", [100, 200, 300, 300]),
        ("backoff = 'linear', backoff_max_seconds = 250", [100, 200, 250, 250]),
        ("backoff = 'fixed', backoff_delays = '{100,900,200}'", [100, 900, 200, 200]),
    ] {
        bench.sql(&format!("UPDATE punchcard.kinds SET {policy} WHERE name = 'test.scripted'")).await;
        let id = bench.script(account, json!([{ "do": "err" }])).await;
        assert_eq!(bench.balance(account).await, (0, 10));
        assert_eq!(delays(&bench, &worker, account, &id).await, expected, "{policy}");
        assert_eq!(bench.balance(account).await, (10, 0), "released when it failed");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_leaves_a_part_of_each_delay_to_chance() {
    let bench = Bench::new().await;
    let account = bench.account(200).await;
    bench.scripted_kind("backoff_seconds = 3600, jitter = 0.5").await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.script(account, json!([{ "do": "err" }])).await);
    }
    tick(&bench.scripted_worker()).await;
    let mut seen = BTreeSet::new();
    for id in &ids {
        seen.insert(delay(&bench, account, id).await);
    }
    assert!(seen.first() >= Some(&1_800) && seen.last() <= Some(&3_600), "{seen:?}");
    assert!(seen.len() > 5, "spread: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_narrow_its_kinds_policy_and_no_other_job_notices() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.scripted_kind("max_attempts = 4, backoff_seconds = 100").await;
    let worker = bench.scripted_worker();
    let err = json!([{ "do": "err" }]);
    for (retry, expected) in [
        (json!({ "max_attempts": 1 }), vec![]),
        (json!({ "max_attempts": 2 }), vec![100]),
        (
            json!({ "backoff": "linear", "backoff_seconds": 200, "backoff_max_seconds": 500 }),
            vec![200, 400, 500],
        ),
        (json!({ "backoff": "fixed", "backoff_delays": [900, 100] }), vec![900, 100, 100]),
        (json!({}), vec![100, 200, 400]),
        (Value::Null, vec![100, 200, 400]),
    ] {
        let id = buy(&bench, account, err.clone(), retry.clone()).await;
        assert_eq!(delays(&bench, &worker, account, &id).await, expected, "{retry}");
    }
    // Of the kind's jitter a job may have none.
    bench.sql("UPDATE punchcard.kinds SET jitter = 1, backoff_seconds = 900").await;
    let id = buy(&bench, account, err, json!({ "jitter": 0, "max_attempts": 2 })).await;
    assert_eq!(delays(&bench, &worker, account, &id).await, [900]);
    assert_eq!(bench.balance(account).await, (50, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_makes_no_sense_buys_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.scripted_kind("").await;
    let fixed = |delays: Value| json!({ "backoff": "fixed", "backoff_delays": delays });
    for (retry, status, code) in [
        (json!({ "max_attempts": 0 }), 422, "invalid_retry"),
        (json!({ "max_attempts": -1 }), 422, "invalid_retry"),
        (json!({ "max_attempts": 4 }), 422, "invalid_retry"),
        (json!({ "max_attempts": 1000 }), 422, "invalid_retry"),
        (json!({ "max_attempts": i64::MAX }), 422, "invalid_retry"),
        (json!({ "max_attempts": 2.5 }), 400, "invalid_field"),
        (json!({ "max_attempts": "2" }), 400, "invalid_field"),
        (json!({ "backoff": "random" }), 400, "invalid_field"),
        (json!({ "backoff": "fixed" }), 422, "invalid_retry"),
        (json!({ "backoff_delays": [1] }), 422, "invalid_retry"),
        (json!({ "backoff": "linear", "backoff_delays": [1] }), 422, "invalid_retry"),
        (fixed(json!([])), 422, "invalid_retry"),
        (fixed(json!([-1])), 422, "invalid_retry"),
        (fixed(json!([86_401])), 422, "invalid_retry"),
        (fixed(json!(vec![1; 26])), 422, "invalid_retry"),
        (fixed(json!([1.5])), 400, "invalid_field"),
        (fixed(json!(7)), 400, "invalid_field"),
        (json!({ "backoff_seconds": 0 }), 422, "invalid_retry"),
        (json!({ "backoff_seconds": 86_401 }), 422, "invalid_retry"),
        (json!({ "backoff_max_seconds": 0 }), 422, "invalid_retry"),
        (json!({ "jitter": 2 }), 422, "invalid_retry"),
        (json!({ "jitter": -0.1 }), 422, "invalid_retry"),
        (json!({ "jitter": "some" }), 400, "invalid_field"),
        (json!({ "max_crashes": 1 }), 400, "unknown_field"),
        (json!({ "timeout_seconds": 1 }), 400, "unknown_field"),
        (json!([]), 400, "invalid_field"),
        (json!(3), 400, "invalid_field"),
    ] {
        let job = json!({ "kind": "test.scripted", "retry": retry });
        assert_refused(&bench.post(account, job, None).await, status, code);
    }
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);
    assert_eq!(bench.balance(account).await, (50, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sql_a_number_with_a_fraction_is_refused_rather_than_read_by_no_worker() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.scripted_kind("").await;
    for retry in [
        r#"{"max_attempts": 2.0}"#,
        r#"{"backoff_seconds": 10.0}"#,
        r#"{"backoff": "fixed", "backoff_delays": [1.0]}"#,
    ] {
        let enqueue = format!(
            "SELECT punchcard.enqueue('{account}', 'test.scripted', p_options => '{{\"retry\": {retry}}}')"
        );
        let error = bench.admin.batch_execute(&enqueue).await.expect_err(retry);
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("PT422"), "{error:?}");
    }
    assert_eq!(bench.balance(account).await, (50, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_batch_may_have_its_own_policy() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("backoff_seconds = 100").await;
    let job = |retry: Value| json!({ "kind": "test.scripted", "input": { "script": [{ "do": "err" }] }, "retry": retry });
    let batch = async |jobs: Value| {
        let token = bearer(account);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = json!({ "jobs": jobs }).to_string();
        bench.request(event("POST", "/api/jobs:batch", &headers, Some(&body))).await
    };
    let refused = batch(json!([job(Value::Null), job(json!({ "max_attempts": 9 }))])).await;
    assert_refused(&refused, 422, "invalid_retry");
    assert_eq!(bench.balance(account).await, (20, 0), "all or nothing");

    let jobs =
        batch(json!([job(json!({ "max_attempts": 1 })), job(json!({ "backoff_seconds": 300 }))])).await;
    assert_eq!((jobs.status, bench.balance(account).await), (202, (0, 20)));
    tick(&bench.scripted_worker()).await;
    let id = |n: usize| jobs.body["jobs"][n]["id"].as_str().unwrap();
    assert_eq!(bench.job(account, id(0)).await["status"], "failed");
    assert_eq!(delay(&bench, account, id(1)).await, 300);
    assert_eq!(bench.balance(account).await, (10, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_error_ends_the_job_at_once() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("").await;
    let id = bench.script(account, json!([{ "do": "final" }, { "do": "done" }])).await;
    assert_eq!(tick(&bench.scripted_worker()).await["failed"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["status"], &job["attempt"], &job["output"]),
        (&json!("failed"), &json!(1), &Value::Null)
    );
    assert_eq!(
        job["error"],
        json!({ "code": "handler_error", "message": "as the test wants it", "attempt": 1 })
    );
    assert_eq!((&job["credits"], bench.balance(account).await), (&credits(0, 0, 10), (10, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_spends_an_attempt_like_any_error() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("max_attempts = 2").await;
    let worker = bench.scripted_worker();
    let panics = bench.script(account, json!([{ "do": "panic" }])).await;
    let recovers = bench.script(account, json!([{ "do": "panic" }, { "do": "done" }])).await;
    assert_eq!(tick(&worker).await["retried"], 2);
    let job = bench.job(account, &panics).await;
    assert_eq!((&job["status"], &job["attempt"], &job["crashes"]), (&json!("queued"), &json!(1), &json!(0)));
    bench.wait(2).await;
    tick(&worker).await;
    let job = bench.job(account, &panics).await;
    assert_eq!((&job["status"], &job["attempt"], &job["crashes"]), (&json!("failed"), &json!(2), &json!(0)));
    assert_eq!((&job["error"]["code"], &job["credits"]), (&json!("handler_panicked"), &credits(0, 0, 10)));
    let job = bench.job(account, &recovers).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!((&job["credits"], bench.balance(account).await), (&credits(0, 10, 0), (10, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_say_when_to_try_again_up_to_a_day() {
    let bench = Bench::new().await;
    let account = bench.account(40).await;
    bench.scripted_kind("backoff_seconds = 100").await;
    let mut ids = Vec::new();
    for step in ["err", "unavailable"] {
        for seconds in [700, 10_000_000] {
            ids.push(bench.script(account, json!([{ "do": step, "retry_after": seconds }])).await);
        }
    }
    tick(&bench.scripted_worker()).await;
    for (id, (seconds, attempt)) in ids.iter().zip([(700, 1), (86_400, 1), (700, 0), (86_400, 0)]) {
        assert_eq!(delay(&bench, account, id).await, seconds);
        assert_eq!(bench.job(account, id).await["attempt"], attempt);
    }
    assert_eq!(bench.balance(account).await, (0, 40));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_jobs_fault_spends_no_attempt_until_its_life_is_over() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("max_attempts = 1, backoff_seconds = 100, life_seconds = 5000").await;
    let worker = bench.scripted_worker();
    let away = bench.script(account, json!([{ "do": "unavailable" }])).await;
    let mut steps = vec![json!({ "do": "unavailable" }); 4];
    steps.push(json!({ "do": "done" }));
    let comes_back = bench.script(account, json!(steps)).await;
    for expected in [100, 200, 400, 800] {
        assert_eq!(tick(&worker).await["snoozed"], 2);
        let job = bench.job(account, &away).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("queued"), &json!(0)));
        assert_eq!((&job["error"]["code"], &job["credits"]), (&json!("unavailable"), &credits(10, 0, 0)));
        assert_eq!(delay(&bench, account, &away).await, expected, "longer each time");
        bench.wait(1_000).await;
    }
    let summary = tick(&worker).await;
    assert_eq!((&summary["snoozed"], &summary["succeeded"]), (&json!(1), &json!(1)));
    let job = bench.job(account, &comes_back).await;
    assert_eq!((&job["attempt"], &job["credits"]), (&json!(1), &credits(0, 10, 0)));
    bench.wait(1_000).await;
    assert_eq!(tick(&worker).await["lapsed"], 1);
    let job = bench.job(account, &away).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("expired")));
    assert_eq!((&job["credits"], bench.balance(account).await), (&credits(0, 0, 10), (10, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_targets_status_says_whether_and_when_to_try_again() {
    let bench = Bench::new().await;
    let target = ScriptedServer::start(|request| {
        let (status, retry_after) = request.path.trim_start_matches('/').split_once('/').unwrap();
        let answer = match status {
            "0" => return Response::hang_up(),
            status => Response::json(status.parse().unwrap(), json!({})),
        };
        if retry_after.is_empty() { answer } else { answer.header("retry-after", retry_after) }
    })
    .await
    .unwrap();
    let (away, again, reached) = ("unavailable", "target_error", "target_unreachable");
    // A status and its Retry-After; the attempt spent, the error, and the delay: none, and it has failed.
    let answers = [
        ("429/", 0, away, Some(100)),
        ("429/500", 0, away, Some(500)),
        ("503/500", 0, away, Some(500)),
        ("503/9999999", 0, away, Some(86_400)),
        ("503/", 1, again, Some(100)),
        ("503/soon", 1, again, Some(100)),
        ("408/", 1, again, Some(100)),
        ("408/500", 1, again, Some(500)),
        ("425/9999999", 1, again, Some(86_400)),
        ("500/500", 1, again, Some(100)),
        ("502/", 1, again, Some(100)),
        ("504/", 1, again, Some(100)),
        ("0/", 1, reached, Some(100)),
        ("400/500", 1, "invalid_input", None),
        ("422/", 1, "invalid_input", None),
        ("301/", 1, again, None),
        ("401/500", 1, again, None),
        ("404/", 1, again, None),
    ];
    let account = bench.account(answers.len().try_into().unwrap()).await;
    let mut ids = Vec::new();
    for (n, (path, ..)) in answers.iter().enumerate() {
        bench.http_kind(&format!("kind-{n}"), 1, &target.url(&format!("/{path}"))).await;
        ids.push(bench.post(account, json!({ "kind": format!("kind-{n}") }), None).await.body["id"].clone());
    }
    bench.sql("UPDATE punchcard.kinds SET backoff_seconds = 100, jitter = 0").await;
    tick(&bench.poller()).await;
    assert_eq!(target.requests().len(), answers.len(), "each once");
    for (id, (path, attempt, code, expected)) in ids.iter().zip(answers) {
        let id = id.as_str().unwrap();
        let job = bench.job(account, id).await;
        assert_eq!((&job["attempt"], &job["error"]["code"]), (&json!(attempt), &json!(code)), "{path}");
        let (status, money) =
            if expected.is_some() { ("queued", credits(1, 0, 0)) } else { ("failed", credits(0, 0, 1)) };
        assert_eq!((&job["status"], &job["credits"]), (&json!(status), &money), "{path}");
        if let Some(seconds) = expected {
            assert_eq!(delay(&bench, account, id).await, seconds, "{path}");
        }
    }
    assert_eq!(bench.balance(account).await, (5, 13));
    bench.assert_audit_is_clean().await;
}
