//! Peers that are silent, half gone or slow: every call ends within its budget, and the next one is served as if nothing
//! had been.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use api::ROUTES;
use futures_util::future::join_all;
use local::{
    lambda::{Function, InvokeError},
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use shared::signing::callback_token;
use uuid::Uuid;

use crate::support::{
    Bench, SIGNING_SECRET, bearer, binary, environment, event, routes_of,
    wire::{Mode, Wire},
};

/// The time-out of the API here, and of the workers: they take on jobs of 5 s, also on a busy machine.
const API_TIMEOUT: Duration = Duration::from_secs(6);
const WORKER_TIMEOUT: Duration = Duration::from_secs(16);
/// A pause with which nothing comes through in time, and one with which everything does.
const TOO_SLOW: Mode = Mode::Drip(Duration::from_millis(100));
const SLOW: Mode = Mode::Drip(Duration::from_millis(1));

/// What a function had to do with its peer before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    JustUsed,
    /// For longer than a connection is trusted.
    Idle,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Done,
    Unavailable,
}

const CASES: &[(Before, Mode, Then)] = &[
    (Before::Nothing, Mode::BlackHole, Then::Unavailable),
    (Before::Nothing, Mode::NoLogin, Then::Unavailable),
    (Before::Nothing, TOO_SLOW, Then::Unavailable),
    (Before::JustUsed, Mode::BlackHole, Then::Unavailable),
    (Before::JustUsed, Mode::Mute, Then::Unavailable),
    (Before::JustUsed, Mode::HalfOpen, Then::Unavailable),
    (Before::JustUsed, Mode::HalfSent, Then::Unavailable),
    (Before::JustUsed, Mode::Jam, Then::Unavailable),
    (Before::JustUsed, TOO_SLOW, Then::Unavailable),
    (Before::JustUsed, SLOW, Then::Done),
    (Before::Idle, Mode::BlackHole, Then::Unavailable),
    (Before::Idle, Mode::HalfOpen, Then::Done),
];

/// A request to each route; of the three jobs one is shown, one canceled and one, which was canceled before, retried.
fn requests(account: Uuid, [job, waiting, canceled]: [Uuid; 3], service: &str) -> Vec<Value> {
    let (user, service) = (bearer(account), format!("Bearer {service}"));
    let get = |path: &str| event("GET", path, &[("authorization", &user)], None);
    let send = |method: &str, path: &str, token: &str, body: Value| {
        let headers =
            [("authorization", token), ("content-type", "application/json"), ("idempotency-key", path)];
        event(method, path, &headers, Some(&body.to_string()))
    };
    let post = |path: &str, token: &str, body: Value| send("POST", path, token, body);
    let callback = format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, job, 1));
    let buy = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    let other = |end: &str| format!("/api/accounts/{}/{end}", other(account));
    vec![
        get("/api/health"),
        post("/api/jobs", &user, buy.clone()),
        post("/api/jobs:batch", &user, json!({ "jobs": [buy, buy] })),
        get("/api/jobs?limit=2"), // byte by byte, a long page takes long
        get(&format!("/api/jobs/{job}")),
        get(&format!("/api/jobs/{job}/runs")),
        get(&format!("/api/jobs/{job}/events")),
        get(&format!("/api/jobs/{job}/deliveries")),
        post(&format!("/api/jobs/{waiting}/cancel"), &user, json!({})),
        post(&format!("/api/jobs/{canceled}/retry"), &user, json!({})),
        post(&callback, "", json!({ "status": "running", "progress": { "percent": 10 } })),
        post("/api/jobs:retry", &service, json!({ "kind": "unserved" })),
        post("/api/jobs:validate", &user, json!({ "jobs": [{ "kind": "qr.svg" }] })),
        get("/api/kinds"),
        get("/api/webhook"),
        send("PUT", "/api/webhook", &user, json!({ "url": "https://example.com/" })),
        send("DELETE", "/api/webhook", &user, json!({})),
        post("/api/webhook/rotate-secret", &user, json!({})),
        get("/api/credits"),
        get("/api/credits/ledger"),
        get("/api/credits/statement?month=2026-11&limit=2"),
        post(&format!("/api/credits/grants?account_id={account}"), &service, json!({ "amount": 5 })),
        post(&other("erase"), &service, json!({})),
        event("GET", &other("erasure"), &[("authorization", &service)], None),
        event("GET", &other("export"), &[("authorization", &service)], None),
    ]
}

/// An account that is erased, beside one that is not.
fn other(account: Uuid) -> Uuid {
    Uuid::from_u128(account.as_u128() ^ 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_within_its_budget_and_recovers() {
    let mut requests = requests(Uuid::nil(), [Uuid::nil(); 3], "");
    requests.push(event("GET", "/api/openapi.json", &[], None)); // asks no peer
    assert_eq!(
        routes_of(&requests),
        HashSet::from_iter(ROUTES.iter().copied()),
        "each route stands in this test"
    );
    let bench = Bench::new().await;
    let service = bench.service_token("operator", &["grant", "operate"]).await;
    // Not all at once: each has an environment for each route, and budgets of a few seconds.
    for cases in CASES.chunks(2) {
        join_all(cases.iter().map(|case| peer(&bench, &service, *case))).await;
    }
    bench.assert_audit_is_clean().await;
}

async fn peer(bench: &Bench, service: &str, case: (Before, Mode, Then)) {
    let (before, mode, then) = case;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 3).await;
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{0}', 1, 'k'); SELECT punchcard.erase_account('{0}')",
            other(account)
        ))
        .await;
    let jobs = format!("SELECT id FROM punchcard.jobs WHERE account_id = '{account}' ORDER BY id");
    let jobs: Vec<Uuid> = bench.rows(&jobs).await.iter().map(|row| row.get(0)).collect();
    bench.sql(&format!("SELECT punchcard.cancel('{}')", jobs[2])).await;
    bench
        .sql(&format!(
            "UPDATE punchcard.queue SET lease_token = 1, run_started_at = now(), waiting_until = now() + interval '1 hour'
             WHERE job_id = '{}'",
            jobs[0]
        ))
        .await;
    let requests = requests(account, [jobs[0], jobs[1], jobs[2]], service);
    let wire = Wire::to(&bench.url).await;
    // An environment for each, so that each has its own connection.
    let function =
        || Function::new(binary("api"), environment(&wire.url)).timeout(API_TIMEOUT).max_concurrency(1);
    let apis: Vec<Function> = requests.iter().map(|_| function()).collect();
    if before != Before::Nothing {
        let health = join_all(apis.iter().map(|api| api.invoke(&requests[0]))).await;
        for (answer, api) in health.into_iter().zip(&apis) {
            assert_eq!(answer.unwrap()["statusCode"], 200, "{case:?}, before: {}", api.logs().await);
        }
    }
    if before == Before::Idle {
        tokio::time::sleep(Duration::from_millis(10_500)).await;
    }

    wire.set(mode);
    let answers = join_all(apis.iter().zip(&requests).map(|(api, request)| api.invoke(request))).await;
    for (answer, request) in answers.iter().zip(&requests) {
        let path = &request["rawPath"];
        let answer = answer.as_ref().unwrap_or_else(|error| panic!("{case:?} {path}: {error}"));
        let status = answer["statusCode"].as_u64().unwrap();
        if then == Then::Done {
            assert!((200..300).contains(&status), "{case:?} {path}: {answer}");
            continue;
        }
        assert_eq!(status, 503, "{case:?} {path}: {answer}");
        assert_eq!(answer["headers"]["content-type"], "application/problem+json", "{case:?} {path}");
        assert_eq!(answer["headers"]["retry-after"], "5", "{case:?} {path}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        // What was sent on an open connection may have been done.
        let code = if before == Before::JustUsed { "outcome_unknown" } else { "unavailable" };
        assert_eq!(body["code"], code, "{case:?} {path}: {body}");
    }

    let pids: Vec<_> = apis.iter().map(Function::pids).collect();
    wire.set(Mode::Through);
    let again = join_all(apis.iter().zip(&requests).map(|(api, request)| api.invoke(request))).await;
    for ((answer, request), api) in again.iter().zip(&requests).zip(&apis) {
        let path = &request["rawPath"];
        let answer = answer.as_ref().unwrap_or_else(|error| panic!("{case:?} {path}, after: {error}"));
        let status = answer["statusCode"].as_u64().unwrap();
        let was_done =
            status == 409 && ["/cancel\"", "/retry\""].iter().any(|end| path.to_string().ends_with(end));
        let sound = (200..300).contains(&status) || was_done;
        assert!(sound, "{case:?} {path}, after: {answer:?} {}", api.logs().await);
    }
    assert_eq!(apis.iter().map(Function::pids).collect::<Vec<_>>(), pids, "{case:?}: without a restart");
    // What was not known had been done, if it had arrived, or it is done now; never both.
    let arrived =
        then == Then::Done || before == Before::JustUsed && matches!(mode, Mode::Mute | Mode::Drip(_));
    if mode != Mode::Jam {
        let status = if arrived { 200 } else { 202 };
        assert_eq!(again[1].as_ref().unwrap()["statusCode"], status, "{case:?}");
    }
    let jobs = format!("SELECT count(*) FROM punchcard.jobs WHERE account_id = '{account}'");
    assert_eq!(bench.count(&jobs).await, 3 + 1 + 2 + 1, "{case:?}: bought once");
    assert_eq!(bench.balance(account).await, (10 - 5 + 5, 5), "{case:?}: charged, released and granted once");
}

/// Not late, not killed, not crashed: an answer, or the function's own word that it failed.
fn ended(case: &impl std::fmt::Debug, answer: Result<Value, InvokeError>) -> Option<Value> {
    match answer {
        Ok(answer) => Some(answer),
        Err(InvokeError::Function { error_type, message }) => {
            assert!(!message.contains("panicked"), "{case:?}: {error_type}: {message}");
            None
        }
        Err(error) => panic!("{case:?}: {error}"),
    }
}

/// The poller and the worker of wake-ups, with what they are invoked by.
fn workers(url: &str) -> [(Function, Value); 2] {
    let worker =
        |name| Function::new(binary(name), environment(url)).timeout(WORKER_TIMEOUT).max_concurrency(1);
    let body = json!({ "drain": {} }).to_string();
    let batch = json!({ "Records": [{ "messageId": "a", "body": body }] });
    [(worker("poller"), json!({})), (worker("sqs-worker"), batch)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_and_a_batch_end_within_their_budget_and_recover() {
    let bench = Bench::new().await;
    let account = bench.account(40).await;
    bench.enqueue(account, "qr.svg", 40).await;
    let (bench, account) = (&bench, account);
    let cases = CASES.iter().filter(|(_, _, then)| *then == Then::Unavailable);
    let cases = cases.filter(|(before, ..)| *before != Before::Idle);
    join_all(cases.map(|case| async move {
        let wire = Wire::to(&bench.url).await;
        let workers = workers(&wire.url);
        join_all(workers.iter().map(|(worker, event)| async move {
            if case.0 != Before::Nothing {
                worker.invoke(event).await.unwrap();
            }
        }))
        .await;
        wire.set(case.1);
        let begin = Instant::now();
        let [tick, batch] =
            join_all(workers.iter().map(|(worker, event)| worker.invoke(event))).await.try_into().unwrap();
        assert_eq!(ended(case, tick), None, "a tick that did nothing says so");
        assert_eq!(
            ended(case, batch),
            Some(json!({ "batchItemFailures": [] })),
            "the next tick is the retry"
        );
        assert!(begin.elapsed() < WORKER_TIMEOUT + Duration::from_secs(15), "{case:?}");
        wire.set(Mode::Through);
        for (worker, event) in &workers {
            let pids = worker.pids();
            worker.invoke(event).await.unwrap_or_else(|error| panic!("{case:?}, after: {error}"));
            assert_eq!(worker.pids(), pids, "{case:?}: without a restart");
        }
    }))
    .await;
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_flight_when_the_peer_falls_silent_are_neither_lost_nor_charged_twice() {
    let modes = [Mode::BlackHole, Mode::HalfOpen, Mode::Mute, Mode::HalfSent, Mode::Jam, TOO_SLOW, SLOW];
    join_all(modes.into_iter().flat_map(|mode| [(mode, 0), (mode, 1)]).map(|case| async move {
        const JOBS: usize = 20;
        let (mode, which) = case;
        let bench = Bench::new().await;
        let account = bench.account(100).await;
        // They end one after the other, all before the invocation does.
        let target = ScriptedServer::start(|request| {
            let job = request.headers["webhook-id"].to_str().unwrap().as_bytes();
            let spread = u64::from(job[job.len() - 1] % 16);
            Response::json(200, json!({})).delay(Duration::from_millis(500 + spread * 250))
        });
        let target = target.await.unwrap();
        bench.http_kind("lasting", 5, &target.url("/")).await;
        let wire = Wire::to(&bench.url).await;
        let (worker, event) = &workers(&wire.url)[which];
        // Started before, so that its whole budget is for the jobs, however busy this machine is.
        worker.invoke(event).await.unwrap();
        bench.enqueue(account, "lasting", JOBS).await;
        let running = worker.start_invoke(event);
        let all_in_flight = async {
            while target.requests().len() < JOBS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WORKER_TIMEOUT, all_in_flight).await.expect("all are in flight");
        wire.set(mode);
        ended(&case, running.wait().await);
        wire.set(Mode::Through);
        worker.invoke(event).await.unwrap_or_else(|error| panic!("{case:?}, after: {error}"));
        bench
            .sql("UPDATE punchcard.queue SET lease_expires_at = now() WHERE lease_expires_at IS NOT NULL")
            .await;
        bench.drain().await;
        let done = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded'";
        assert_eq!(bench.count(done).await, JOBS as i64, "{case:?}: none lost");
        assert_eq!(bench.balance(account).await, (0, 0), "{case:?}: none charged twice");
        bench.assert_audit_is_clean().await;
    }))
    .await;
}
