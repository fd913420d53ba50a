//! Draining: no-op jobs, every hold captured.

use std::time::Duration;

use local::Result;
use local::lambda::Function;
use serde_json::json;
use tokio::task::JoinSet;

use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};
use crate::peers;
use crate::pgbench::{self, Load};
use crate::server::{ACCOUNTS, Database, read};

/// Jobs that the raw statement finishes and claims in one round trip: more made it slower.
const RAW_BATCH: u32 = 100;

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let jobs = bench.size(100_000, 2_000);
    for pollers in [1, 2] {
        let ours: Run<'_> = Box::new(move || Box::pin(ours(bench, jobs, pollers)));
        let raw: Run<'_> = Box::new(move || Box::pin(raw(bench, jobs, pollers)));
        let mut contenders = vec![("ours".into(), ours), ("raw, finish and claim".into(), raw)];
        contenders.extend(peers::contenders(bench, "drain", jobs, pollers));
        bench.compare(&format!("drain, {pollers} pollers"), contenders).await?;
    }
    Ok(())
}

async fn ours(bench: &Bench, jobs: u32, pollers: u32) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    database.fill(jobs, ACCOUNTS, "0", "NULL").await?;
    let measure = drain(bench, &database, jobs, pollers).await?;
    bench.server.drop_audited(database).await?;
    Ok(measure)
}

/// Ticks until nothing is due, by pollers as they are deployed.
pub(crate) async fn drain(bench: &Bench, database: &Database, jobs: u32, pollers: u32) -> Result<Measure> {
    let functions: Vec<Function> = (0..pollers).map(|_| poller(bench, database, 0)).collect();
    let meter = Meter::start(&bench.server, &database.name).await?;
    let mut ticks = JoinSet::new();
    for function in &functions {
        ticks.spawn(function.start_invoke(&json!({})).wait());
    }
    while let Some(tick) = ticks.join_next().await {
        tick?.map_err(|error| error.to_string())?;
    }
    let mut measure = meter.stop(f64::from(jobs)).await?;
    let left = database.count("SELECT count(*) FROM punchcard.queue WHERE run_at <= now()").await?;
    if left > 0 {
        return Err(format!("{left} jobs are left").into());
    }
    measure.dead_rows = dead_rows(database).await? / f64::from(jobs);
    Ok(measure)
}

pub(crate) fn poller(bench: &Bench, database: &Database, linger_ms: u32) -> Function {
    let env = [
        ("DATABASE_URL", database.url.clone()),
        ("CONCURRENCY", "1000".into()),
        ("LINGER_MS", linger_ms.to_string()),
        ("LOG_LEVEL", "error".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    Function::new(bench.functions.join("noop-worker"), env.to_vec()).timeout(Duration::from_secs(890))
}

pub(crate) async fn dead_rows(database: &Database) -> Result<f64> {
    let dead = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables";
    Ok(database.count(dead).await? as f64)
}

async fn raw(bench: &Bench, jobs: u32, clients: u32) -> Result<Measure> {
    let database = bench.server.database("raw").await?;
    database.fill_raw(jobs).await?;
    let statement = read(&bench.raw.join("drain.sql"))?;
    let transactions = jobs.div_ceil(RAW_BATCH * clients) + 2;
    let batch = RAW_BATCH.to_string();
    let define = [("ids", "{}"), ("batch", batch.as_str())];
    let meter = Meter::start(&bench.server, &database.name).await?;
    let load = Load { clients, transactions, define: &define, ..Load::ONE };
    let answer = pgbench::run(&bench.pgbench, &database.url, &statement, load).await?;
    // A client that was ahead of the others may end between a claim and its finish.
    let left = database.count("SELECT count(*) FROM raw.queue").await? as f64;
    if left > f64::from(RAW_BATCH * clients) {
        return Err(format!("{left} jobs are left").into());
    }
    let mut measure = meter.stop_after(f64::from(jobs) - left, answer.transactions / answer.rate).await?;
    measure.dead_rows = dead_rows(&database).await? / f64::from(jobs);
    bench.server.drop(database).await?;
    Ok(measure)
}
