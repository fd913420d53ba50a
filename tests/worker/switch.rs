//! SQS is turned on and off, and builds are exchanged, under load: the same jobs, none lost, none run twice.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use local::{
    lambda::Function,
    pump::Pump,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;

use crate::support::{Bench, bearer, environment, event, sqs::Sqs};

const JOBS: usize = 5_000;
const A_BATCH: usize = 25;
const PHASES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_jobs_pass_while_sqs_is_switched_off_and_on_twice() {
    let (bench, sqs) = (Arc::new(Bench::new().await), Sqs::new(Duration::from_secs(600), 5).await);
    let account = bench.account(JOBS as i64).await;
    let target = Arc::new(ScriptedServer::start(|_| Response::json(200, json!({}))).await.unwrap());
    // The emulator's time grows with the square of what is in a queue, and its pump must keep up: a fifth of the jobs are
    // woken, the others are of a kind that is left to the poller however SQS stands.
    bench.http_kind("woken", 1, &target.url("/")).await;
    bench.http_kind("polled", 1, &target.url("/")).await;
    bench.sql("UPDATE punchcard.kinds SET dispatch = 'poll' WHERE name = 'polled'").await;

    // Old processes live on: an API that was replaced still takes the requests that it has, and so do the workers.
    let with = |bench: &Bench| (sqs.api(bench), sqs.poller(bench, &[("LINGER_MS", "1500")]));
    let without = |bench: &Bench| {
        let api = Function::new(crate::support::binary("api"), environment(&bench.url)).max_concurrency(12);
        (api, bench.poller_with(&[("LINGER_MS", "1500")]))
    };
    let phases = [with(&bench), without(&bench), with(&bench), without(&bench)].map(Arc::new);
    let worker = Sqs::worker(&bench, &[]);
    let mut pump = Some(Pump::start(&sqs.queue, &worker, 3, 10));

    let (bought, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut ticking = tokio::task::JoinSet::new();
    let mut buying = tokio::task::JoinSet::new();
    for (number, phase) in phases.iter().enumerate() {
        let (ticks, over) = (Arc::clone(phase), Arc::clone(&over));
        ticking.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                ticks.1.invoke(&json!({})).await.expect("a tick");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        // Buyers of a phase begin before those of the last one have ended.
        for buyer in 0..4 {
            let (phase, bought) = (Arc::clone(phase), Arc::clone(&bought));
            buying.spawn(async move {
                let jobs =
                    (0..A_BATCH).map(|n| json!({ "kind": if n % 5 == 0 { "woken" } else { "polled" } }));
                let body = json!({ "jobs": jobs.collect::<Vec<_>>() }).to_string();
                let token = bearer(account);
                for turn in 0..JOBS / A_BATCH / PHASES / 4 + usize::from(buyer < JOBS / A_BATCH / PHASES % 4)
                {
                    let key = format!("{number}-{buyer}-{turn}");
                    let headers = [
                        ("authorization", token.as_str()),
                        ("content-type", "application/json"),
                        ("idempotency-key", &key),
                    ];
                    let answer =
                        phase.0.invoke(&event("POST", "/api/jobs:batch", &headers, Some(&body))).await;
                    assert_eq!(answer.unwrap()["statusCode"], 202);
                    bought.fetch_add(A_BATCH, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
        while bought.load(Ordering::Relaxed) < JOBS * (number + 1) / PHASES - 8 * A_BATCH {
            tokio::time::sleep(Duration::from_millis(10)).await;
            while let Some(buyer) = buying.try_join_next() {
                buyer.unwrap();
            }
        }
        // The mapping goes with the queue, and its messages stay; both come back.
        pump = pump.is_none().then(|| Pump::start(&sqs.queue, &worker, 3, 10));
    }
    while let Some(buyer) = buying.join_next().await {
        buyer.unwrap();
    }
    assert_eq!(bought.load(Ordering::Relaxed), JOBS);
    for _ in 0..600 {
        if bench.count("SELECT count(*) FROM punchcard.queue").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ticks) = ticking.join_next().await {
        ticks.unwrap();
    }
    let _pump = pump.unwrap_or_else(|| Pump::start(&sqs.queue, &worker, 3, 10));
    assert_eq!(sqs.emptied().await, 0, "messages that were left are done without harm");

    let done = "SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded' AND attempt = 1";
    assert_eq!(bench.count(done).await, JOBS as i64);
    let mut starts = HashMap::<String, usize>::new();
    for request in target.requests() {
        *starts.entry(request.headers["webhook-id"].to_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((starts.len(), starts.values().max()), (JOBS, Some(&1)), "each ran once");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}
