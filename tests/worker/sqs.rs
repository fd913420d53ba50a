//! The SQS path: real messages through the SDK and an emulator, delivered as Lambda's event source mapping does.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use local::{
    lambda::Function,
    pump::Pump,
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::support::{
    Bench, bearer, event,
    sqs::{self, Sqs},
};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(2);

/// How often each job was started, by the target that its kind calls.
fn starts(target: &ScriptedServer) -> HashMap<String, usize> {
    let mut starts = HashMap::new();
    for request in target.requests() {
        *starts.entry(request.headers["webhook-id"].to_str().unwrap().to_owned()).or_default() += 1;
    }
    starts
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !so().await {
        assert!(begin.elapsed() < Duration::from_secs(120), "{what}: not within 120 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all_final(bench: &Bench) {
    until("all final", async || bench.count("SELECT count(*) FROM punchcard.queue").await == 0).await;
}

async fn queued_id(bench: &Bench) -> Uuid {
    bench.rows("SELECT job_id FROM punchcard.queue").await[0].get(0)
}

fn wake_up(id: impl std::fmt::Display) -> String {
    format!(r#"{{"job_id":"{id}"}}"#)
}

fn post(account: Uuid, body: &Value) -> Value {
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let path = if body.get("jobs").is_some() { "/api/jobs:batch" } else { "/api/jobs" };
    event("POST", path, &headers, Some(&body.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_bought_by_the_api_runs_without_a_tick() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(10).await;
    let worker = Sqs::worker(&bench, &[]);
    let pump = Pump::start(&sqs.queue, &worker, 2, 10);
    let job = post(account, &json!({ "kind": "qr.svg", "input": { "text": "hello" } }));
    assert_eq!(sqs.api(&bench).invoke(&job).await.unwrap()["statusCode"], 202);
    all_final(&bench).await;
    assert_eq!(sqs.emptied().await, 0);
    assert_eq!(pump.deliveries().len(), 1);
    assert_eq!(bench.balance(account).await, (9, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_wakes_a_worker_for_each_job_but_those_that_are_due_much_later_or_only_polled() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(100).await;
    bench.sql("UPDATE punchcard.kinds SET dispatch = 'poll' WHERE name = 'free'").await;
    let past = "2020-01-01T00:00:00Z"; // at once
    let later = bench
        .rows(
            "SELECT to_char(now() at time zone 'UTC' + interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        )
        .await;
    let later: String = later[0].get(0);
    let job = |kind: &str, run_at: &str| json!({ "kind": kind, "input": { "text": "t" }, "run_at": run_at });
    let mut jobs: Vec<Value> = (0..25).map(|_| job("qr.svg", past)).collect();
    jobs.push(job("qr.svg", &later));
    jobs.push(job("free", past));
    let answer = sqs.api(&bench).invoke(&post(account, &json!({ "jobs": jobs }))).await.unwrap();
    assert_eq!(answer["statusCode"], 202, "{answer}");
    assert_eq!(sqs.queue.depths().await.unwrap().0, 25);
    let worker = Sqs::worker(&bench, &[]);
    let _pump = Pump::start(&sqs.queue, &worker, 2, 10);
    assert_eq!(sqs.emptied().await, 0);
    let left = "SELECT count(*) FROM punchcard.queue WHERE lease_token = 0";
    until("25 done", async || bench.count(left).await == 2).await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_is_woken_when_it_is_due_and_not_before() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(10).await;
    let worker = Sqs::worker(&bench, &[]);
    let _pump = Pump::start(&sqs.queue, &worker, 2, 10);
    let run_at = bench.rows("SELECT to_char(now() at time zone 'UTC' + interval '2 seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')").await;
    let run_at: String = run_at[0].get(0);
    let job = json!({ "kind": "qr.svg", "input": { "text": "hello" }, "run_at": run_at });
    assert_eq!(sqs.api(&bench).invoke(&post(account, &job)).await.unwrap()["statusCode"], 202);
    all_final(&bench).await;
    let late = "SELECT extract(epoch FROM o.run_started_at - j.scheduled_at)::float8
                FROM punchcard.jobs j JOIN punchcard.outcomes o ON o.job_id = j.id";
    let late: f64 = bench.rows(late).await[0].get(0);
    assert!((0.0..60.0).contains(&late), "{late} s");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_and_shuffled_messages_start_each_job_once() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(1_000).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_millis(20)));
    let target = target.await.unwrap();
    bench.http_kind("traced", 10, &target.url("/")).await;
    bench.enqueue(account, "traced", 60).await;
    let mut ids: Vec<Uuid> =
        bench.rows("SELECT job_id FROM punchcard.queue").await.iter().map(|row| row.get(0)).collect();
    ids.extend(ids.clone());
    ids.sort_by_key(|id| (id.as_u128().wrapping_mul(0x9e37_79b9_7f4a_7c15_9e37_79b9_7f4a_7c15), *id));
    let worker = Sqs::worker(&bench, &[("CONCURRENCY", "7")]);
    let pump = Pump::start(&sqs.queue, &worker, 4, 10);
    let bodies: Vec<String> = ids.iter().map(wake_up).collect();
    for sent in futures_util::future::join_all(bodies.iter().map(|body| sqs.queue.send(body))).await {
        sent.unwrap();
    }
    all_final(&bench).await;
    assert_eq!(sqs.emptied().await, 0);
    assert!(
        pump.deliveries().len() >= 120,
        "each is delivered, and what was sent again for want of an answer too"
    );
    let starts = starts(&target);
    assert!(starts.len() == 60 && starts.values().all(|times| *times == 1), "{starts:?}");
    assert_eq!(bench.balance(account).await, (400, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_what_is_not_there_yet_or_never_is_done_and_the_tick_finds_the_job() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(SHORT, 2).await);
    let account = bench.account(10).await;
    let worker = Sqs::worker(&bench, &[]);
    let _pump = Pump::start(&sqs.queue, &worker, 2, 10);
    let other = crate::support::connect(&bench.direct_url).await;
    other.batch_execute("BEGIN").await.unwrap();
    let enqueue =
        format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{\"text\":\"t\"}}')");
    let id: Uuid = other.query_typed(&enqueue, &[]).await.unwrap()[0].get(0);
    sqs.queue.send(&wake_up(id)).await.unwrap(); // not visible yet
    sqs.queue.send(&wake_up(Uuid::new_v4())).await.unwrap(); // nobody's
    sqs.queue.send(&wake_up(Uuid::nil())).await.unwrap();
    assert_eq!(sqs.emptied().await, 0, "no dead letter");
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    // Final by now: a late duplicate is done as well.
    sqs.queue.send(&wake_up(id)).await.unwrap();
    assert_eq!(sqs.emptied().await, 0);
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes WHERE attempt = 1").await, 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_becomes_a_dead_letter_and_stops_nobody() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(SHORT, 2).await);
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let good = wake_up(queued_id(&bench).await);
    let bad =
        ["not JSON", "{}", "[]", "null", r#"{"job_id":"x"}"#, r#"{"job_id":null}"#, r#"{"drain":{"n":9}}"#];
    for body in bad {
        sqs.queue.send(body).await.unwrap();
    }
    sqs.queue.send(&good).await.unwrap();
    let worker = Sqs::worker(&bench, &[]);
    let pump = Pump::start(&sqs.queue, &worker, 2, 10);
    all_final(&bench).await;
    until("seven dead letters", async || sqs.queue.depths().await.unwrap() == (0, 7)).await;
    let deliveries = pump.deliveries();
    assert_eq!(
        deliveries.iter().filter(|it| it.body == good).count(),
        1,
        "only what cannot be read comes again"
    );
    assert_eq!(deliveries.iter().filter(|it| it.body == bad[0]).count(), 2);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_no_batch_fail_and_odd_batches_are_answered() {
    let bench = Bench::new().await;
    let worker = Sqs::worker(&bench, &[]);
    for event in [json!({}), json!([]), json!(null), json!({ "Records": [{ "body": "{}" }] })] {
        let error = worker.invoke(&event).await.unwrap_err().to_string();
        assert!(error.contains("no batch of SQS messages"), "{event}: {error}");
    }
    let none = json!({ "batchItemFailures": [] });
    assert_eq!(worker.invoke(&json!({ "Records": [] })).await.unwrap(), none);
    let twice = json!({ "messageId": "a", "body": wake_up(Uuid::new_v4()) });
    assert_eq!(worker.invoke(&json!({ "Records": [twice, twice] })).await.unwrap(), none);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_and_a_panic_stay_with_their_item() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(SHORT, 2).await);
    let account = bench.account(100).await;
    bench
        .sql(
            "INSERT INTO punchcard.kinds (name, price, max_attempts) VALUES
              ('test.fine', 1, 1), ('test.error', 1, 1), ('test.panic', 1, 1)",
        )
        .await;
    for kind in ["test.fine", "test.fine", "test.error"] {
        bench.enqueue(account, kind, 1).await;
    }
    bench.enqueue(account, "test.fine", 6).await;
    bench.enqueue(account, "test.panic", 1).await;
    let ids = bench.rows("SELECT job_id FROM punchcard.queue ORDER BY job_id").await;
    for id in &ids {
        sqs.queue.send(&wake_up(id.get::<_, Uuid>(0))).await.unwrap();
    }
    let binary = env!("CARGO_BIN_EXE_scripted-worker").into();
    let worker = Arc::new(
        Function::new(binary, crate::support::environment(&bench.url)).timeout(Duration::from_secs(60)),
    );
    let _pump = Pump::start(&sqs.queue, &worker, 1, 10);
    all_final(&bench).await;
    assert_eq!(sqs.emptied().await, 0, "a job's failure is not its message's");
    let outcomes = "SELECT string_agg(it, ', ' ORDER BY it) FROM (
        SELECT format('%s %s: %s', j.kind, coalesce(o.error->>'code', o.status::text), count(*)) AS it
        FROM punchcard.outcomes o JOIN punchcard.jobs j ON j.id = o.job_id GROUP BY j.kind, coalesce(o.error->>'code', o.status::text)) k";
    let outcomes: String = bench.rows(outcomes).await[0].get(0);
    assert_eq!(
        outcomes,
        "test.error handler_error: 1, test.fine succeeded: 8, test.panic handler_panicked: 1"
    );
    assert_eq!(bench.balance(account).await, (92, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_with_ten_in_flight_loses_nothing() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(SHORT, 5).await);
    let account = bench.account(100).await;
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    let target = ScriptedServer::start(move |request| {
        let first = seen.lock().unwrap().insert(request.headers["webhook-id"].clone());
        Response::json(200, json!({})).delay(Duration::from_secs(if first { 60 } else { 0 }))
    });
    let target = target.await.unwrap();
    bench.http_kind("hangs", 10, &target.url("/")).await;
    bench.enqueue(account, "hangs", 10).await;
    for id in bench.rows("SELECT job_id FROM punchcard.queue").await {
        sqs.queue.send(&wake_up(id.get::<_, Uuid>(0))).await.unwrap();
    }
    let worker = Sqs::worker(&bench, &[]);
    let pump = Pump::start(&sqs.queue, &worker, 1, 10);
    until("ten in flight", async || target.requests().len() == 10).await;
    for pid in worker.pids() {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    // The messages come again and find their jobs under valid leases: nothing is run twice.
    until("delivered again", async || pump.deliveries().len() >= 20).await;
    assert_eq!(target.requests().len(), 10);
    bench.sql("UPDATE punchcard.queue SET lease_expires_at = now()").await;
    let tick = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(tick["rescued"], 10, "{tick}");
    all_final(&bench).await;
    assert_eq!(sqs.emptied().await, 0);
    assert!(starts(&target).values().all(|times| *times == 2));
    assert_eq!(
        bench
            .count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded' AND crashes = 1")
            .await,
        10
    );
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

/// A way to SQS on which every request arrives and no answer does.
async fn mute(endpoint: &str) -> String {
    let upstream = endpoint.trim_start_matches("http://").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let upstream = upstream.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let (mut from_client, _to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut answer = [0; 1];
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    _ = from_server.read(&mut answer) => {}
                }
                let _ = to_server.shutdown().await;
            });
        }
    });
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_failed_after_it_was_taken_is_no_error_and_the_job_runs_once() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(10).await;
    let endpoint = mute(&sqs::endpoint()).await;
    let env = sqs.environment(&bench, &[("AWS_ENDPOINT_URL_SQS", &endpoint)]);
    let api = Function::new(sqs::binary("api"), env);
    let job = post(account, &json!({ "kind": "qr.svg", "input": { "text": "hello" } }));
    assert_eq!(api.invoke(&job).await.unwrap()["statusCode"], 202);
    let logs = api.logs().await;
    assert!(logs.contains(r#""message":"wake-ups not sent""#) && logs.contains(r#""wake_ups":1"#), "{logs}");
    assert!(sqs.queue.depths().await.unwrap().0 >= 1, "it was taken, more than once perhaps");
    let worker = Sqs::worker(&bench, &[]);
    let _pump = Pump::start(&sqs.queue, &worker, 2, 10);
    all_final(&bench).await;
    assert_eq!(sqs.emptied().await, 0);
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes WHERE attempt = 1").await, 1);
    assert_eq!(bench.balance(account).await, (9, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_out_of_reach_costs_the_caller_two_seconds_at_most_and_the_tick_finds_the_job() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(10).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections, says nothing
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let api =
        Function::new(sqs::binary("api"), sqs.environment(&bench, &[("AWS_ENDPOINT_URL_SQS", &endpoint)]));
    let job = post(account, &json!({ "kind": "qr.svg", "input": { "text": "hello" } }));
    let begin = Instant::now();
    assert_eq!(api.invoke(&job).await.unwrap()["statusCode"], 202);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(api.logs().await.contains("wake-ups not sent"));
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_out_of_reach_makes_no_dead_letters() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(SHORT, 1).await);
    let nowhere = crate::support::environment("postgres://postgres@127.0.0.1:9/nowhere");
    let worker = Arc::new(Function::new(crate::support::binary("sqs-worker"), nowhere));
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    sqs.queue.send(&wake_up(queued_id(&bench).await)).await.unwrap();
    let _pump = Pump::start(&sqs.queue, &worker, 1, 10);
    assert_eq!(sqs.emptied().await, 0);
    assert!(worker.logs().await.contains("wake-ups left to the next tick"));
    assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_woken_worker_fills_up_with_what_is_due_by_priority_but_leaves_polled_kinds_alone() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    bench.sql("UPDATE punchcard.kinds SET dispatch = 'poll' WHERE name = 'echo.http'").await;
    bench.enqueue(account, "echo.http", 2).await;
    bench.enqueue(account, "qr.svg", 30).await;
    let newest = bench
        .rows("SELECT job_id FROM punchcard.queue WHERE kind = 'qr.svg' ORDER BY job_id DESC LIMIT 1")
        .await;
    let records = json!([{ "messageId": "a", "body": wake_up(newest[0].get::<_, Uuid>(0)) }]);
    let worker = Sqs::worker(&bench, &[("CONCURRENCY", "4")]);
    let answer = worker.invoke(&json!({ "Records": records })).await.unwrap();
    assert_eq!(answer, json!({ "batchItemFailures": [] }));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded'").await, 30);
    let first = "SELECT o.job_id FROM punchcard.outcomes o ORDER BY o.run_started_at, o.job_id LIMIT 4";
    let first = bench.rows(first).await;
    assert!(
        first.iter().any(|row| row.get::<_, Uuid>(0) == newest[0].get::<_, Uuid>(0)),
        "the named one first"
    );
    // A polled kind is nobody's business here, even by name.
    let polled = bench.rows("SELECT job_id FROM punchcard.queue").await;
    let records = json!([{ "messageId": "a", "body": wake_up(polled[0].get::<_, Uuid>(0)) }]);
    worker.invoke(&json!({ "Records": records })).await.unwrap();
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.queue WHERE lease_token = 0").await, 2);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_with_more_than_it_can_do_calls_for_help_up_to_its_bound() {
    let (bench, sqs) = (Bench::new().await, Sqs::new(LONG, 5).await);
    let account = bench.account(10_000).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_millis(600)));
    let target = target.await.unwrap();
    bench.http_kind("slow", 1, &target.url("/")).await;
    bench.enqueue(account, "slow", 900).await; // 2 at a time, 0.6 s each: alone it would take 270 s
    let poller =
        sqs.poller(&bench, &[("CONCURRENCY", "2"), ("MOST_HELPERS", "3")]).timeout(Duration::from_secs(25));
    let tick = poller.start_invoke(&json!({}));
    until("help is called", async || sqs.queue.depths().await.unwrap().0 > 0).await;
    assert_eq!(sqs.queue.depths().await.unwrap().0, 3, "as many as are allowed, at once");
    let worker = Sqs::worker(&bench, &[("CONCURRENCY", "40")]);
    let _pump = Pump::start(&sqs.queue, &worker, 3, 1); // as the template has it for calls
    all_final(&bench).await;
    assert_eq!(worker.pids().len(), 3, "each call is a worker of its own");
    let summary = tick.wait().await.unwrap();
    assert_eq!(summary["called"], 3, "{summary}");
    assert_eq!(sqs.emptied().await, 0);
    assert!(starts(&target).values().all(|times| *times == 1));
    // With nothing left nobody is called.
    let idle = poller.invoke(&json!({})).await.unwrap();
    assert_eq!((&idle["called"], &idle["claimed"]), (&json!(0), &json!(0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_the_feature_refuses_a_queue_and_links_no_sdk() {
    let bench = Bench::new().await;
    for name in ["api", "poller", "sqs-worker"] {
        let mut env = crate::support::environment(&bench.url);
        env.push(("WAKE_QUEUE_URL".into(), "http://127.0.0.1:9/1/q".into()));
        let function = Function::new(crate::support::binary(name), env);
        function.invoke(&json!({})).await.unwrap_err();
        let logs = function.logs().await;
        assert!(
            logs.contains("WAKE_QUEUE_URL: this build sends no wake-ups: build with the feature `sqs`"),
            "{logs}"
        );
    }
    let has_sdk = |path: std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(11).any(|window| window == b"aws_sdk_sqs")
    };
    for name in ["api", "poller"] {
        assert!(!has_sdk(crate::support::binary(name)), "{name}");
        assert!(has_sdk(sqs::binary(name)), "{name}, with the feature");
    }
}
