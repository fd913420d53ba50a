//! Buying jobs: one by one, of many accounts and of one, through a pooler, and a thousand at once.

use local::Result;
use local::pgbouncer::{PgBouncer, PoolMode};
use shared::db::jobs::ENQUEUE;

use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};
use crate::peers;
use crate::pgbench::{self, Load};
use crate::server::{ACCOUNTS, INPUT, account, read};

/// Our statement as the API sends it, its parameters filled in.
pub(super) fn ours() -> String {
    let filled = ENQUEUE
        .replace("$1", ":account")
        .replace("$2", "'bench.noop'")
        .replace("$3", ":input")
        .replace("$4", "NULL")
        .replace("$5", "0")
        .replace("$6", "NULL")
        .replace("$7", "NULL");
    format!("{filled};")
}

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let seconds = bench.size(5, 1);
    for clients in [1, 16] {
        let load = (clients, ACCOUNTS, seconds);
        let mut contenders = vec![
            ("ours".into(), contender(bench, "ours", ours(), load, Setting::Plain)),
            ("raw, one statement".into(), raw(bench, "enqueue.sql", load)?),
            ("raw, as a function".into(), raw(bench, "enqueue_function.sql", load)?),
        ];
        contenders.extend(peers::contenders(bench, "enqueue", bench.size(10_000, 2_000), clients));
        bench
            .compare(&format!("enqueue with charge, {clients} clients, {ACCOUNTS} accounts"), contenders)
            .await?;
    }

    let load = (16, ACCOUNTS, seconds);
    let pooler = PgBouncer::start(&bench.server.postgres, PoolMode::Transaction)?;
    let contenders = vec![
        ("ours, pooled".into(), contender(bench, "ours", ours(), load, Setting::Pooled(&pooler))),
        ("ours, direct".into(), contender(bench, "ours", ours(), load, Setting::Plain)),
    ];
    bench.compare("enqueue through PgBouncer, 16 clients", contenders).await?;

    for clients in [1, 16] {
        let load = (clients, 1, seconds);
        let contenders = vec![
            ("ours, spread over 8".into(), contender(bench, "ours", ours(), load, Setting::Spread)),
            ("ours, not spread".into(), contender(bench, "ours", ours(), load, Setting::Plain)),
            ("raw, one statement".into(), raw(bench, "enqueue.sql", load)?),
        ];
        bench.compare(&format!("enqueue, {clients} clients, one hot account"), contenders).await?;
    }
    Ok(())
}

pub(crate) async fn batch(bench: &Bench) -> Result<()> {
    let load = (1, ACCOUNTS, bench.size(8, 1));
    let ours = "SELECT id, kind, status, price, replayed FROM punchcard.enqueue_batch(:account, (SELECT jobs FROM sent));";
    let mut contenders = vec![
        ("ours".into(), contender(bench, "ours", ours.into(), load, Setting::Batch)),
        (
            "raw, unnest".into(),
            contender(bench, "raw", read(&bench.raw.join("enqueue_batch.sql"))?, load, Setting::Batch),
        ),
    ];
    contenders.extend(peers::contenders(bench, "batch", bench.size(50_000, 10_000), 1));
    bench.compare("batches of 1,000, 1 client", contenders).await
}

fn raw<'a>(bench: &'a Bench, file: &str, load: (u32, u32, u32)) -> Result<Run<'a>> {
    Ok(contender(bench, "raw", read(&bench.raw.join(file))?, load, Setting::Plain))
}

#[derive(Clone, Copy)]
enum Setting<'a> {
    Plain,
    Pooled(&'a PgBouncer),
    Spread,
    Batch,
}

fn contender<'a>(
    bench: &'a Bench,
    template: &'a str,
    statement: String,
    load: (u32, u32, u32),
    setting: Setting<'a>,
) -> Run<'a> {
    Box::new(move || Box::pin(once(bench, template, statement.clone(), load, setting)))
}

async fn once(
    bench: &Bench,
    template: &str,
    statement: String,
    (clients, accounts, seconds): (u32, u32, u32),
    setting: Setting<'_>,
) -> Result<Measure> {
    let database = bench.server.database(template).await?;
    let url = match setting {
        Setting::Pooled(pooler) => pooler.url(&database.name),
        Setting::Plain | Setting::Spread | Setting::Batch => database.url.clone(),
    };
    if let Setting::Spread = setting {
        let spread = format!("SELECT punchcard.spread_account({}, 8)", account("1"));
        database.client.batch_execute(&spread).await?;
    }
    if let Setting::Batch = setting {
        // What a client sends, so that neither contender is charged for making it up.
        let sent = format!(
            "CREATE TABLE sent AS
             SELECT json_agg(json_build_object('kind', 'bench.noop', 'input', '{INPUT}'::json)) AS jobs,
                    array_agg('bench.noop'::text) AS kinds, array_agg('{INPUT}'::text) AS inputs
             FROM generate_series(1, 1000)"
        );
        database.client.batch_execute(&sent).await?;
    }
    database.settle_down().await?;
    // A backend's first call reads the catalogues; a warm one is what a pooler keeps.
    pgbench::run(&bench.pgbench, &url, &statement, Load { clients, accounts, ..Load::ONE }).await?;
    let meter = Meter::start(&bench.server, &database.name).await?;
    let load = Load { clients, accounts, seconds: Some(seconds), ..Load::ONE };
    let answer = pgbench::run(&bench.pgbench, &url, &statement, load).await?;
    let each = if let Setting::Batch = setting { 1_000.0 } else { 1.0 };
    let jobs = answer.transactions * each;
    let mut measure = meter.stop_after(jobs, answer.transactions / answer.rate).await?;
    measure.more.extend([("p50_ms".to_owned(), answer.p50_ms), ("p99_ms".to_owned(), answer.p99_ms)]);
    if template == "ours" {
        bench.server.drop_audited(database).await?;
    } else {
        bench.server.drop(database).await?;
    }
    Ok(measure)
}
