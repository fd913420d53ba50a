//! From enqueue to start: by SQS, by a tick that lingers, and by a tick a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use local::Result;
use local::lambda::Function;
use local::pump::Pump;
use local::scripted::{Response, ScriptedServer};
use local::sqs::{Emulator, Queue, environment};
use serde_json::{Value, json};
use shared::db::tokens::{TOKEN_PREFIX, token_hash};
use tokio::time::{interval, sleep};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::compare::{Bench, Run};
use crate::meter::Measure;
use crate::server::{Database, account};

/// Jobs by SQS, one after the other, and the pause between two.
const JOBS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
/// How long jobs come in for the ticks, one each half second.
const SECONDS: u64 = 120;

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let emulator = Emulator::start()?;
    let endpoint = emulator.endpoint().to_owned();
    let polled = |linger_ms: u32| -> Run<'_> { Box::new(move || Box::pin(polled(bench, linger_ms))) };
    let woken: Run<'_> = Box::new(move || Box::pin(woken(bench, endpoint.clone())));
    let contenders = vec![
        ("ours, SQS".to_owned(), woken),
        ("ours, poll with linger".to_owned(), polled(55_000)),
        ("ours, poll".to_owned(), polled(0)),
    ];
    bench.compare_once("pickup: enqueue to start (rate: 1 / p50)", contenders).await
}

async fn prepared(bench: &Bench) -> Result<Database> {
    let database = bench.server.database("ours").await?;
    database
        .client
        .batch_execute("INSERT INTO punchcard.kinds (name, price) VALUES ('bench.stamp', 1)")
        .await?;
    Ok(database)
}

/// A tick a minute; jobs at even distances, so at every distance from a tick.
async fn polled(bench: &Bench, linger_ms: u32) -> Result<Measure> {
    let database = prepared(bench).await?;
    let poller = super::drain::poller(bench, &database, linger_ms).timeout(Duration::from_secs(120));
    let ticks = tokio::spawn(async move {
        let mut minute = interval(Duration::from_secs(60));
        loop {
            minute.tick().await;
            drop(poller.start_invoke(&json!({})));
        }
    });
    let mut half_second = interval(Duration::from_millis(500));
    for _ in 0..SECONDS * 2 {
        half_second.tick().await;
        let sql = format!("SELECT punchcard.enqueue({}, 'bench.stamp')", account("1"));
        database.client.batch_execute(&sql).await?;
    }
    wait_until_done(&database, Duration::from_secs(90)).await?;
    ticks.abort();
    let (jobs, more) = enqueue_to_start(&database).await?;
    bench.server.drop_audited(database).await?;
    Ok(measure(jobs, more))
}

async fn woken(bench: &Bench, endpoint: String) -> Result<Measure> {
    let database = prepared(bench).await?;
    let token = service_token(&database).await?;
    let name = format!("pickup-{}", Uuid::new_v4().simple());
    let queue = Queue::create(&endpoint, &name, Duration::from_secs(720), 5).await?;
    let worker = Arc::new(super::drain::poller(bench, &database, 0));
    let pump = Pump::start(&queue, &worker, 5, 10);

    let api = api(bench, &database, &endpoint, &queue.url);
    for _ in 0..JOBS {
        buy(&api, &token).await?;
        sleep(PAUSE).await;
    }
    wait_until_done(&database, Duration::from_secs(60)).await?;
    let (jobs, mut more) = enqueue_to_start(&database).await?;
    // The same to a queue that answers at once: what is ours of the sending.
    let instant = ScriptedServer::start(|_| {
        let taken =
            json!({ "Id": "0", "MessageId": "m", "MD5OfMessageBody": "d41d8cd98f00b204e9800998ecf8427e" });
        Response::json(200, json!({ "Successful": [taken], "Failed": [] }))
    });
    let instant = instant.await?;
    let alone = self::api(bench, &database, &instant.url(""), &instant.url("/1/q"));
    for _ in 0..JOBS {
        buy(&alone, &token).await?;
    }
    let started = received_to_started(&database, &pump).await?;
    more.extend([
        ("send_ms".to_owned(), percentile(sends(&api).await, 0.5)),
        ("send_own_ms".to_owned(), percentile(sends(&alone).await, 0.5)),
        ("received_to_handler_ms".to_owned(), percentile(started.clone(), 0.5)),
        ("received_to_handler_p99_ms".to_owned(), percentile(started, 0.99)),
    ]);
    bench.server.drop(database).await?;
    Ok(measure(jobs, more))
}

fn measure(jobs: f64, more: BTreeMap<String, f64>) -> Measure {
    let p50 = more.get("p50_ms").copied().unwrap_or(f64::NAN);
    Measure { jobs, rate: 1_000.0 / p50, more, ..Measure::default() }
}

async fn service_token(database: &Database) -> Result<String> {
    let token = format!("{TOKEN_PREFIX}{}", Uuid::new_v4().simple());
    let insert = "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256) VALUES ('bench', 1, '{enqueue}', $1)";
    database.client.execute_typed(insert, &[(&token_hash(&token), Type::BYTEA)]).await?;
    Ok(token)
}

fn api(bench: &Bench, database: &Database, endpoint: &str, queue_url: &str) -> Function {
    let mut env = environment(endpoint);
    env.extend(
        [
            ("DATABASE_URL", database.url.as_str()),
            ("JWT_SECRET", "a secret for nobody, of more than 32 bytes"),
            ("WAKE_QUEUE_URL", queue_url),
            ("LOG_LEVEL", "error,shared=debug"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    Function::new(bench.functions.join("with-sqs/api"), env)
}

async fn buy(api: &Function, token: &str) -> Result<()> {
    let account = "00000000-0000-7000-8000-000000000001"; // the first of the template's
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/api/jobs",
        "rawQueryString": format!("account_id={account}"), "queryStringParameters": { "account_id": account },
        "headers": { "authorization": format!("Bearer {token}"), "content-type": "application/json" },
        "body": json!({ "kind": "bench.stamp" }).to_string(), "isBase64Encoded": false,
        "requestContext": {
            "http": { "method": "POST", "path": "/api/jobs", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1" },
            "timeEpoch": 1
        }
    });
    let answer = api.invoke(&event).await.map_err(|error| error.to_string())?;
    match answer["statusCode"].as_u64() {
        Some(202) => Ok(()),
        _ => Err(format!("the API answered {answer}").into()),
    }
}

async fn wait_until_done(database: &Database, longest: Duration) -> Result<()> {
    let queued = "SELECT count(*) FROM punchcard.queue";
    for _ in 0..longest.as_secs() * 10 {
        if database.count(queued).await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{} jobs are left", database.count(queued).await?).into())
}

/// By the database's clock: from the statement that bought a job to the one that claimed it.
async fn enqueue_to_start(database: &Database) -> Result<(f64, BTreeMap<String, f64>)> {
    let sql = "SELECT (extract(epoch FROM o.run_started_at - j.created_at) * 1000)::float8
               FROM punchcard.jobs j JOIN punchcard.outcomes o ON o.job_id = j.id";
    let rows = database.client.query_typed(sql, &[]).await?;
    let times: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    let jobs = times.len() as f64;
    let more = [("p50_ms", 0.5), ("p99_ms", 0.99)]
        .map(|(name, share)| (name.to_owned(), percentile(times.clone(), share)));
    Ok((jobs, more.into()))
}

/// From the pump's receiving a message to its handler's first instruction, in milliseconds.
async fn received_to_started(database: &Database, pump: &Pump) -> Result<Vec<f64>> {
    let sql = "SELECT job_id::text, (output::text)::float8 FROM punchcard.outcomes";
    let rows = database.client.query_typed(sql, &[]).await?;
    let started: HashMap<String, f64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let times = pump.deliveries().into_iter().filter_map(|delivery| {
        let body: Value = serde_json::from_str(&delivery.body).ok()?;
        let received = delivery.at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64() * 1_000.0;
        Some(started.get(body["job_id"].as_str()?)? - received)
    });
    Ok(times.collect())
}

/// What the API says of each sending: from the statement's answer to the queue's, in milliseconds.
async fn sends(api: &Function) -> Vec<f64> {
    let logs = api.logs().await;
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"] == "wake-ups sent")
        .filter_map(|line| line["millis"].as_f64())
        .collect()
}

fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
