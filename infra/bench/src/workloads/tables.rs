//! Large tables: a backlog, a history, many delayed jobs among priorities.

use local::Result;

use super::drain::drain;
use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};
use crate::pgbench::{self, Load};
use crate::server::{ACCOUNTS, Database};

/// A claim of a hundred, as the poller sends its first.
const CLAIM: &str =
    "SELECT job_id, lease_token, account_id, kind, attempt, max_attempts, input, url, secret_version,
    retired, timeout_seconds, backoff_seconds, backoff_max_seconds, lasts_seconds, priority, run_at_micros
    FROM punchcard.claim(100, '{bench.noop}', true, 60, 60);";

pub(crate) async fn backlog(bench: &Bench) -> Result<()> {
    let many = bench.size(1_000_000, 10_000);
    let (delayed, few) = (bench.size(200_000, 5_000), bench.size(10_000, 2_000));
    let contenders: Vec<(String, Run<'_>)> = vec![
        (format!("ours, {few} queued"), Box::new(move || Box::pin(claims(bench, few, 0, "0")))),
        (format!("ours, {many} queued"), Box::new(move || Box::pin(claims(bench, many, 0, "0")))),
        (
            format!("ours, {few}, {delayed} delayed"),
            Box::new(move || Box::pin(claims(bench, few, delayed, "n % 10 - 5"))),
        ),
    ];
    bench.compare("claims of 100, beside a backlog and delayed jobs", contenders).await
}

async fn claims(bench: &Bench, queued: u32, delayed: u32, priority: &str) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    database.fill(queued, ACCOUNTS, priority, "NULL").await?;
    delay(&database, delayed).await?;
    let once = Load { transactions: 5, ..Load::ONE };
    pgbench::run(&bench.pgbench, &database.url, CLAIM, once).await?;
    let meter = Meter::start(&bench.server, &database.name).await?;
    let claims = bench.size(50, 10);
    let load = Load { transactions: claims, ..Load::ONE };
    let answer = pgbench::run(&bench.pgbench, &database.url, CLAIM, load).await?;
    let mut measure = meter.stop_after(f64::from(claims * 100), answer.transactions / answer.rate).await?;
    measure.more.insert("p50_ms".into(), answer.p50_ms);
    bench.server.drop_audited(database).await?;
    Ok(measure)
}

async fn delay(database: &Database, jobs: u32) -> Result<()> {
    if jobs == 0 {
        return Ok(());
    }
    database.fill(jobs, ACCOUNTS, "n % 10 - 5", "now() + interval '1 hour' + n * interval '1 second'").await
}

pub(crate) async fn history(bench: &Bench) -> Result<()> {
    let (finished, jobs) = (bench.size(1_000_000, 5_000), bench.size(20_000, 2_000));
    let contenders: Vec<(String, Run<'_>)> = vec![
        (
            format!("ours, {finished} finished"),
            Box::new(move || Box::pin(beside_history(bench, jobs, finished))),
        ),
        ("ours, none finished".into(), Box::new(move || Box::pin(beside_history(bench, jobs, 0)))),
    ];
    bench.compare(&format!("drain of {jobs} over a history"), contenders).await
}

async fn beside_history(bench: &Bench, jobs: u32, finished: u32) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    if finished > 0 {
        // Finished the way jobs are; the poller is quick enough.
        database.fill(finished, ACCOUNTS, "0", "NULL").await?;
        drain(bench, &database, finished, 2).await?;
    }
    // A first round writes the full page images that follow a checkpoint; they are not what a history costs.
    database.fill(jobs, ACCOUNTS, "0", "NULL").await?;
    drain(bench, &database, jobs, 1).await?;
    database.fill_more(jobs, ACCOUNTS, "0", "NULL").await?;
    let measure = drain(bench, &database, jobs, 1).await?;
    bench.server.drop_audited(database).await?;
    Ok(measure)
}

pub(crate) async fn delayed(bench: &Bench) -> Result<()> {
    let (delayed, jobs) = (bench.size(200_000, 5_000), bench.size(20_000, 2_000));
    let contenders: Vec<(String, Run<'_>)> = vec![
        (
            format!("ours, {delayed} delayed"),
            Box::new(move || Box::pin(beside_delayed(bench, jobs, delayed))),
        ),
        ("ours, none delayed".into(), Box::new(move || Box::pin(beside_delayed(bench, jobs, 0)))),
    ];
    bench.compare(&format!("drain of {jobs} of mixed priorities"), contenders).await
}

async fn beside_delayed(bench: &Bench, jobs: u32, delayed: u32) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    delay(&database, delayed).await?;
    database.fill(jobs, ACCOUNTS, "n % 10 - 5", "NULL").await?;
    let measure = drain(bench, &database, jobs, 1).await?;
    bench.server.drop_audited(database).await?;
    Ok(measure)
}
