//! `punchcard import`: takes over the table of a hand-rolled queue while its old worker still runs. Final jobs are
//! copied as history; queued ones are marked in the old table, and taken once no old worker has them in hand any more.
//! The marks are the only memory: a run that was killed is resumed by running it again.

mod mapping;
mod plan;
mod source;
mod times;
mod trial;
mod words;

use std::time::Duration;

use clap::Args;
use shared::{db::connect, secrets::Secrets};
use tokio::time::Instant;
use tokio_postgres::{
    Client, Error, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use self::{
    mapping::{Constants, Mapping},
    plan::Plan,
    source::Source,
    times::Zone,
    trial::Mark,
    words::Words,
};
use crate::failure::{Failure, said};

/// What to import, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The old table, such as public.jobs.
    #[arg(long)]
    from: String,
    /// FIELD=COLUMN, separated by commas; usual names are guessed, and nothing behind the `=` means no column. Fields:
    /// account, id, status, kind, input, output, error, created, started, finished, run_at, priority, key,
    /// price. Of the input several columns, as input=COLUMN+COLUMN: an object of them.
    #[arg(long)]
    map: Option<String>,
    /// That no column is the input: every job gets {}.
    #[arg(long)]
    no_input: bool,
    /// The kind, where no column says it.
    #[arg(long)]
    kind: Option<String>,
    /// What the old words mean: WORD=STATUS, separated by commas; usual words are known.
    #[arg(long)]
    status: Option<String>,
    /// What was paid for each queued job, where no column says it; 0 if nothing is to be given back for one
    /// that fails. Without it, queued jobs are taken over only if a column is mapped to price.
    #[arg(long)]
    price: Option<u64>,
    /// In which zone times without one were written, such as Europe/Berlin; UTC, unless another is set in the
    /// database: then it must be said.
    #[arg(long)]
    time_zone: Option<String>,
    /// The word that marks what was taken from the old worker, in its table.
    #[arg(long, default_value = "punchcard")]
    taken_status: String,
    /// How many seconds an old worker may need from having read a queued row to having written its status.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pause: u64,
    /// How many rows in a transaction.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    batch: i64,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Imports what can be, and says what it did.
pub(crate) async fn import(secrets: &Secrets, options: &Options) -> Result<(), Failure> {
    let words = Words::new(options.status.as_deref(), &options.taken_status)?;
    let mut client = connect::client(secrets).await?;
    // What others have created is never taken for PostgreSQL's own; triggers of the team's have their path where they run.
    client.batch_execute("SET search_path = pg_catalog, pg_temp").await.map_err(|error| said(&error))?;
    let source = Source::find(&client, &options.from).await?;
    let zone = Zone::find(&client, options.time_zone.as_deref(), &source.table).await?;
    rows(&client, include_str!("session.sql")).await?;
    lock(&client).await?;

    let constants = Constants { kind: options.kind.as_deref(), price: options.price };
    let mapping =
        Mapping::new(&source, options.map.as_deref(), options.no_input, &constants)?.in_zone(&zone.name);
    let mark = Mark { table: &source.table, column: mapping.status_column(), word: &words.taken };
    for sql in [include_str!("json.sql"), include_str!("flaw.sql")] {
        run(&client, sql).await.map_err(failure)?;
    }
    let old = mapping.fill(include_str!("old.sql"), &words);
    run(&client, &old).await.map_err(|error| format!("{}; nothing has changed", mark.refused(&error)))?;
    for sql in [include_str!("rows.sql"), include_str!("survey.sql"), include_str!("index.sql")] {
        run(&client, sql).await.map_err(failure)?;
    }
    run(&client, include_str!("analyze.sql")).await.map_err(failure)?;

    let plan = Plan::read(&client).await?;
    plan.lines(&mapping).iter().for_each(|line| say(line));
    let zoneless = mapping.zoneless();
    zone.line(&zoneless).iter().for_each(|line| say(line));
    if plan.to_take() > 0 && mapping.has("run_at") {
        say(&times::due(&client).await?);
    }
    let any = plan.to_take() + plan.history() > 0;
    let unsaid = || zone.obstacle(&zoneless).or_else(|| mapping.input_obstacle()).filter(|_| any);
    let unmarkable = || mapping.mark_obstacle(&source.role).filter(|_| plan.to_take() > 0);
    if let Some(obstacle) = plan.obstacle(&mapping).or_else(unsaid).or_else(unmarkable) {
        return Err(obstacle.into());
    }
    if any {
        mark.trial(&mut client, &plan).await?.iter().for_each(|line| say(line));
    }
    if options.dry_run {
        say("dry run: nothing has changed");
        return Ok(());
    }

    let told = |done, after| say(&told("taken from the old worker", done, after, plan.queued));
    let marked = mark.all(&mut client, plan.queued, options.batch, told).await?;
    let pause_ends = Instant::now() + Duration::from_secs(options.pause);
    let batches = Batches { client: &client, rows: options.batch };
    let copied = batches.run("copied", include_str!("copy.sql"), plan.history()).await.map_err(failure)?;
    let mut taken = 0;
    if marked + plan.marked > 0 {
        say(&format!(
            "waiting until {} s after the last mark: the old worker may have some in hand",
            options.pause
        ));
        tokio::time::sleep_until(pause_ends).await;
        run(&client, include_str!("take_job.sql")).await.map_err(failure)?;
        taken = batches.run("taken over", include_str!("take.sql"), plan.to_take()).await.map_err(failure)?;
    }
    say(&format!("imported: {copied} as history, {taken} to be run"));
    for unmoved in &rows(&client, include_str!("unmoved.sql")).await? {
        let (state, count): (&str, i64) = (unmoved.get(0), unmoved.get(1));
        say(&match state {
            "taken" => {
                format!("{count} are marked, but could not be taken over: run this again, it says why")
            }
            "queued" => format!("{count} are queued still: somebody else held them locked: run this again"),
            _ => format!(
                "{count} went to the old worker, which had them in hand ({state}): run this again once it is \
                 done"
            ),
        });
    }
    plan.rest().iter().for_each(|line| say(line));
    Ok(())
}

async fn lock(client: &Client) -> Result<(), Failure> {
    match client.query_typed(include_str!("lock.sql"), &[]).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err("another import is running: wait until it is done".into())
        }
        Err(error) => Err(failure(error)),
    }
}

struct Batches<'a> {
    client: &'a Client,
    rows: i64,
}

impl Batches<'_> {
    /// Runs a statement for one batch of a step after the other, each a transaction of its own; answers to how many
    /// rows it was done.
    async fn run(&self, what: &str, sql: &str, total: i64) -> Result<i64, Error> {
        let (mut after, mut done) = (0, 0);
        while after < total {
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&after, Type::INT8), (&self.rows, Type::INT8)];
            let counted = self.client.query_typed(sql, &params).await?;
            done += counted.first().map_or(0, |row| row.get::<_, i64>(0));
            after = (after + self.rows).min(total);
            say(&told(what, done, after, total));
        }
        Ok(done)
    }
}

async fn run(client: &Client, sql: &str) -> Result<(), Error> {
    client.execute_typed(sql, &[]).await.map(drop)
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, Failure> {
    client.query_typed(sql, &[]).await.map_err(failure)
}

/// Of a connection through a pooler, what was made for one statement is not there for the next.
fn failure(error: Error) -> Failure {
    let why = said(&error);
    let of_ours = error.code().is_some_and(|code| {
        [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_FUNCTION].contains(code) && why.contains("punchcard_")
    });
    match of_ours {
        true => format!("{why}: connect directly, not through a pooler").into(),
        false => why.into(),
    }
}

fn told(what: &str, done: i64, after: i64, total: i64) -> String {
    format!("{what}: {done} ({after} of {total} looked at)")
}

fn say(line: &str) {
    println!("{line}");
}
