//! What a function weighs: its size, its cold start, and its memory with many jobs in flight, against `hello`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use local::Result;
use local::lambda::{Function, InvokeError};
use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::compare::{Bench, Run};
use crate::meter::Measure;
use crate::server::{Database, account};

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let cold = |name: &'static str, database: bool| -> (String, Run<'_>) {
        let shown = if database { format!("{name}, and its first tick") } else { name.to_owned() };
        (shown, Box::new(move || Box::pin(cold_start(bench, name, database))))
    };
    let functions = vec![
        cold("hello", false),
        cold("api", false),
        cold("with-sqs/api", false),
        cold("poller", false),
        cold("with-sqs/poller", false),
        cold("sqs-worker", false),
        cold("poller", true),
    ];
    bench.compare("cold start: process start to first answer", functions).await?;
    let memory = |jobs: u32| -> (String, Run<'_>) {
        (format!("poller, {jobs} in flight"), Box::new(move || Box::pin(in_flight(bench, jobs))))
    };
    bench
        .compare_once("memory with jobs in flight, inputs of 1 KB", vec![memory(1), memory(50), memory(500)])
        .await
}

/// Starts it twenty times, in a quick run thrice; the rate is starts a second. Without a database the poller's first answer is an error:
/// with one, it is a tick, most of which is the password's 4,096 rounds (SCRAM) on both sides.
async fn cold_start(bench: &Bench, name: &str, with_database: bool) -> Result<Measure> {
    let binary = bench.functions.join(name);
    let size = binary.metadata().map_err(|error| format!("{}: {error}", binary.display()))?.len();
    let database = bench.server.database("ours").await?;
    let event = event(name);
    let mut times = Vec::new();
    let starts = bench.size(20, 3);
    for _ in 0..starts {
        let env = [
            (
                "DATABASE_URL",
                if with_database { database.url.as_str() } else { "postgres://nobody@127.0.0.1:9/none" },
            ),
            ("JWT_SECRET", "a secret for nobody, of more than 32 bytes"),
            ("LOG_LEVEL", "error"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let function = Function::new(binary.clone(), env.to_vec());
        let start = Instant::now();
        match function.invoke(&event).await {
            Ok(_) | Err(InvokeError::Function { .. }) => {}
            Err(error) => return Err(error.to_string().into()),
        }
        times.push(start.elapsed().as_secs_f64());
    }
    bench.server.drop(database).await?;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let more =
        BTreeMap::from([("ms".to_owned(), median * 1_000.0), ("stripped_mb".to_owned(), size as f64 / 1e6)]);
    Ok(Measure { jobs: f64::from(starts), rate: 1.0 / median, more, ..Measure::default() })
}

/// What is answered at once.
fn event(name: &str) -> Value {
    if !name.ends_with("api") {
        return json!({});
    }
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/api/nothing", "rawQueryString": "", "headers": {},
        "isBase64Encoded": false,
        "requestContext": {
            "http": { "method": "GET", "path": "/api/nothing", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1" },
            "timeEpoch": 1
        }
    })
}

async fn in_flight(bench: &Bench, jobs: u32) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    let target = ScriptedServer::start(|_| {
        Response::json(200, json!({ "made": "x".repeat(190) })).delay(Duration::from_secs(4))
    });
    let target = target.await?;
    sell(&database, &target.url("/"), jobs).await?;
    let env = [
        ("DATABASE_URL", database.url.clone()),
        ("SIGNING_SECRET", "a secret for nobody, of more than 32 bytes".into()),
        ("CONCURRENCY", jobs.to_string()),
        ("ALLOW_PRIVATE_TARGETS", "true".into()),
        ("LOG_LEVEL", "error".into()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let poller = Function::new(bench.functions.join("poller"), env.to_vec()).timeout(Duration::from_secs(60));
    let tick = poller.start_invoke(&json!({}));
    let pid = tick.pid().await.ok_or("no process")?;
    let start = Instant::now();
    while target.requests().len() < jobs as usize && start.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(20)).await;
    }
    let reached = target.requests().len() as f64;
    let summary = tick.wait().await.map_err(|error| error.to_string())?;
    // The process is kept for the next invocation, and remembers its peak.
    let peak = peak_of(pid).ok_or("no peak of the process")?;
    if summary["succeeded"] != jobs {
        return Err(format!("not all succeeded: {summary}").into());
    }
    bench.server.drop_audited(database).await?;
    let more = BTreeMap::from([("in_flight".to_owned(), reached), ("peak_rss_mb".to_owned(), peak)]);
    Ok(Measure { jobs: f64::from(jobs), rate: f64::from(jobs), more, ..Measure::default() })
}

async fn sell(database: &Database, url: &str, jobs: u32) -> Result<()> {
    let sql = format!(
        "UPDATE punchcard.kinds SET url = '{url}' WHERE name = 'bench.http';
         SELECT count(punchcard.enqueue({account}, 'bench.http', to_json(repeat('x', 1000)))) FROM generate_series(1, {jobs})",
        account = account("1"),
    );
    Ok(database.client.batch_execute(&sql).await?)
}

/// The highest resident set of a process so far, in MB (proc(5): VmHWM). Linux only.
fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1_024.0)
}
