//! A snapshot held elsewhere: a `REPEATABLE READ` transaction left open while jobs pass, so that no dead row can go.

use local::Result;

use crate::compare::{Bench, Run};
use crate::meter::Measure;
use crate::server::{ACCOUNTS, connect};

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let jobs = bench.size(200_000, 5_000);
    let held: Run<'_> = Box::new(move || Box::pin(drain(bench, jobs, true)));
    let free: Run<'_> = Box::new(move || Box::pin(drain(bench, jobs, false)));
    let contenders = vec![("ours, held".into(), held), ("ours, free".into(), free)];
    bench.compare(&format!("held snapshot, {jobs} jobs, 1 poller"), contenders).await
}

async fn drain(bench: &Bench, jobs: u32, held: bool) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    database.fill(jobs, ACCOUNTS, "0", "NULL").await?;
    let reader = connect(&database.url).await?;
    if held {
        reader
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM punchcard.kinds")
            .await?;
    }
    let mut measure = super::drain::drain(bench, &database, jobs, 1).await?;
    reader.batch_execute("ROLLBACK").await?;
    // The first and the last tenth, by when they finished.
    let rate = |from: u32, until: u32| {
        format!(
            "SELECT ({jobs} / 10 / greatest(extract(epoch FROM max(finished_at) - min(finished_at)), 0.001))::bigint
             FROM (SELECT finished_at, row_number() OVER (ORDER BY finished_at) AS n FROM punchcard.outcomes) o
             WHERE n > {from} AND n <= {until}"
        )
    };
    let first = database.count(&rate(0, jobs / 10)).await? as f64;
    let last = database.count(&rate(jobs / 10 * 9, jobs)).await? as f64;
    measure.more.extend([
        ("first_tenth".to_owned(), first),
        ("last_tenth".to_owned(), last),
        ("last_over_first".to_owned(), last / first.max(1.0)),
    ]);
    bench.server.drop_audited(database).await?;
    Ok(measure)
}
