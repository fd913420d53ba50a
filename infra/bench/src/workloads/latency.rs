//! From enqueue to final while jobs come in steadily; and for a long time, with readers that hold snapshots.

use std::time::{Duration, Instant};

use local::Result;
use serde_json::json;
use tokio::time::sleep;

use super::drain::{dead_rows, poller};
use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};
use crate::pgbench::{self, Load};
use crate::server::{ACCOUNTS, Database, account, connect};

pub(crate) async fn steady(bench: &Bench) -> Result<()> {
    let seconds = bench.size(60, 4);
    let contenders: Vec<(String, Run<'_>)> = vec![
        ("ours, one poller".into(), Box::new(move || Box::pin(flow(bench, 500, seconds, 0, false)))),
        ("the same, an account held".into(), Box::new(move || Box::pin(flow(bench, 500, seconds, 0, true)))),
    ];
    bench.compare("steady 500 jobs/s, enqueue to final", contenders).await
}

pub(crate) async fn soak(bench: &Bench) -> Result<()> {
    let contenders: Vec<(String, Run<'_>)> =
        vec![("ours, one poller".into(), Box::new(move || Box::pin(flow(bench, 800, 890, 3, false))))];
    bench.compare_once("soak: 800 jobs/s, three overlapping readers of 120 s", contenders).await
}

async fn flow(bench: &Bench, rate: u32, seconds: u32, readers: u32, held: bool) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    database.settle_down().await?;
    let poller = poller(bench, &database, 55_000).timeout(Duration::from_secs(120));
    let meter = Meter::start(&bench.server, &database.name).await?;
    // As the schedule has it: a tick a minute, whether or not the last one has ended. A tick leaves a kind alone once
    // less time is left of it than the kind may take; by then the next one is there.
    let first = poller.start_invoke(&json!({}));
    first.pid().await;
    let ticks = tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(60)).await;
            drop(poller.start_invoke(&json!({})));
        }
    });
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    for number in 0..readers {
        tokio::spawn(read_for_two_minutes_each(
            database.url.clone(),
            Duration::from_secs(40) * number,
            until,
        ));
    }
    // Somebody's transaction has an account all the while, with jobs of it that are to end.
    if held {
        let holder = connect(&database.url).await?;
        let buy = super::enqueue::ours().replace(":account", &account("1")).replace(":input", "'{}'");
        holder.batch_execute(&buy.repeat(100)).await?;
        let hold = format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = {} FOR UPDATE", account("1"));
        holder.batch_execute(&hold).await?;
        // Before the load ends: those of its clients that buy for the account wait for it.
        tokio::spawn(async move {
            sleep(Duration::from_secs(u64::from(seconds))).await;
            holder.batch_execute("ROLLBACK").await
        });
    }
    let load = Load { clients: 8, accounts: ACCOUNTS, seconds: Some(seconds), rate: Some(rate), ..Load::ONE };
    let answer = pgbench::run(&bench.pgbench, &database.url, &super::enqueue::ours(), load).await?;
    let backlog = database.count("SELECT count(*) FROM punchcard.queue").await? as f64;
    wait_until_done(&database).await?;
    let mut measure = meter.stop_after(answer.transactions, f64::from(seconds)).await?;
    measure.dead_rows = dead_rows(&database).await? / answer.transactions;
    measure.more = latencies(&database).await?;
    measure.more.insert("backlog".into(), backlog);
    ticks.abort();
    bench.server.drop_audited(database).await?;
    Ok(measure)
}

async fn read_for_two_minutes_each(url: String, after: Duration, until: Instant) -> Result<()> {
    sleep(after).await;
    let client = connect(&url).await?;
    while Instant::now() < until {
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM punchcard.kinds")
            .await?;
        sleep(Duration::from_secs(120).min(until.saturating_duration_since(Instant::now()))).await;
        client.batch_execute("ROLLBACK").await?;
    }
    Ok(())
}

async fn wait_until_done(database: &Database) -> Result<()> {
    for _ in 0..1_200 {
        if database.count("SELECT count(*) FROM punchcard.queue").await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let left = database.count("SELECT count(*) FROM punchcard.queue").await?;
    Err(format!("{left} jobs are left after two minutes").into())
}

/// Of all but the first second, and of the last minute alone, in milliseconds; but for the account that somebody may hold.
async fn latencies(database: &Database) -> Result<std::collections::BTreeMap<String, f64>> {
    let sql = "WITH job AS (
            SELECT j.created_at, extract(epoch FROM o.finished_at - j.created_at) * 1000 AS ms
            FROM punchcard.jobs j JOIN punchcard.outcomes o ON o.job_id = j.id
            WHERE j.account_id <> {held}
        ), span AS (SELECT min(created_at) AS first, max(created_at) AS last FROM job)
        SELECT (percentile_cont(0.5) WITHIN GROUP (ORDER BY ms))::float8,
               (percentile_cont(0.99) WITHIN GROUP (ORDER BY ms))::float8,
               coalesce((percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
                   FILTER (WHERE created_at > span.last - interval '1 minute'))::float8, 0)
        FROM job, span WHERE created_at > span.first + interval '1 second'";
    let sql = sql.replace("{held}", &account("1"));
    let rows = database.client.query_typed(&sql, &[]).await?;
    let row = rows.first().ok_or("no latencies")?;
    let named = |name: &str, column: usize| (name.to_owned(), row.get::<_, f64>(column));
    Ok([named("p50_ms", 0), named("p99_ms", 1), named("p99_last_minute_ms", 2)].into())
}
