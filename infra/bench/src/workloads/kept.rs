//! What a finished job leaves behind for ever, in bytes, table by table.

use local::Result;

use super::drain::drain;
use crate::compare::{Bench, Run};
use crate::meter::Measure;
use crate::server::{ACCOUNTS, account};

/// The tables that have a row, or more, for each job that was bought; the queue has it no more.
const TABLES: [&str; 6] = ["jobs", "outcomes", "attempts", "labels", "idempotency_keys", "deferred_entries"];

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let contenders: Vec<(String, Run<'_>)> =
        vec![("ours, bytes kept a job".into(), Box::new(move || Box::pin(kept(bench))))];
    bench.compare_once("kept: 200 B in and out, one attempt, no labels", contenders).await
}

async fn kept(bench: &Bench) -> Result<Measure> {
    let jobs = bench.size(100_000, 5_000);
    let database = bench.server.database("ours").await?;
    let fill = format!(
        "SELECT count(punchcard.enqueue({account}, 'bench.noop', to_json(repeat('x', 198)))) FROM generate_series(1, {jobs}) AS n",
        account = account(&format!("n % {ACCOUNTS} + 1")),
    );
    database.client.batch_execute(&fill).await?;
    database.settle_down().await?;
    let mut measure = drain(bench, &database, jobs, 1).await?;
    let mut total = 0.0;
    for table in TABLES {
        let of = |what: &str| {
            format!(
                "SELECT sum({what}(t.id))::bigint
                 FROM (SELECT 'punchcard.{table}'::regclass AS id
                       UNION SELECT p.relid FROM pg_partition_tree('punchcard.{table}') p) t"
            )
        };
        let heap = database.count(&of("pg_table_size")).await? as f64 / f64::from(jobs);
        let indexes = database.count(&of("pg_indexes_size")).await? as f64 / f64::from(jobs);
        total += heap + indexes;
        if heap + indexes >= 1.0 {
            measure.more.insert(table.to_owned(), heap.round());
            measure.more.insert(format!("{table}_indexes"), indexes.round());
        }
    }
    measure.more.insert("all".to_owned(), total.round());
    bench.server.drop_audited(database).await?;
    Ok(measure)
}
