//! `punchcard import`: takes over the table of a hand-rolled queue while its old worker still runs. Final jobs are
//! copied as history; queued ones are marked in the old table, and taken once no old worker has them in hand any more.
//! The marks are the only memory: a run that was killed is resumed by running it again.

mod mapping;
mod plan;
mod words;

use std::time::Duration;

use clap::Args;
use shared::{
    db::connect::{self, reason},
    secrets::Secrets,
};
use tokio::time::Instant;
use tokio_postgres::{
    Client, Error, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use self::{
    mapping::{Column, Constants, Mapping},
    plan::Plan,
    words::Words,
};
use crate::Failure;

/// What to import, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The old table, such as public.jobs.
    #[arg(long)]
    from: String,
    /// FIELD=COLUMN, separated by commas; usual names are guessed, and nothing behind the `=` means no column. Fields:
    /// account, id, status, kind, input, output, error, created, started, finished, run_at, priority, key, price.
    #[arg(long)]
    map: Option<String>,
    /// The kind, where no column says it.
    #[arg(long)]
    kind: Option<String>,
    /// What the old words mean: WORD=STATUS, separated by commas; usual words are known.
    #[arg(long)]
    status: Option<String>,
    /// What was paid for each queued job, where no column says it.
    #[arg(long)]
    price: Option<u64>,
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
    rows(&client, include_str!("session.sql")).await?;
    lock(&client).await?;

    let (table, columns) = describe(&client, &options.from).await?;
    let hidden =
        client.query_typed(include_str!("hidden.sql"), &[(&table, Type::TEXT)]).await.map_err(failure)?;
    if let Some(row) = hidden.first() {
        return Err(row.get::<_, String>(0).into());
    }
    let constants = Constants { kind: options.kind.as_deref(), price: options.price };
    let mapping = Mapping::new(&table, &columns, options.map.as_deref(), &constants)?;
    let word_refused = |error: Error| {
        let of_word = [
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::CHECK_VIOLATION,
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            SqlState::FOREIGN_KEY_VIOLATION,
        ];
        if !error.code().is_some_and(|code| of_word.contains(code)) {
            return failure(error);
        }
        let (column, word, why) = (mapping.status_column(), &words.taken, why(&error));
        format!(
            "{table}: the column {column} does not take the word {word}, and nothing has changed: choose one that it \
             takes with --taken-status, or let it take this one ({why})"
        )
        .into()
    };
    for sql in [include_str!("json.sql"), include_str!("flaw.sql")] {
        run(&client, sql).await.map_err(failure)?;
    }
    run(&client, &mapping.fill(include_str!("old.sql"), &words)).await.map_err(word_refused)?;
    for sql in [include_str!("rows.sql"), include_str!("survey.sql"), include_str!("index.sql")] {
        run(&client, sql).await.map_err(failure)?;
    }
    run(&client, include_str!("analyze.sql")).await.map_err(failure)?;

    let plan = Plan::read(&client).await?;
    plan.lines(&mapping).iter().for_each(|line| say(line));
    if let Some(obstacle) = plan.obstacle() {
        return Err(obstacle.into());
    }
    if plan.queued > 0 {
        try_mark(&mut client).await.map_err(word_refused)?;
    }
    if options.dry_run {
        say("dry run: nothing has changed");
        return Ok(());
    }

    let batches = Batches { client: &client, rows: options.batch };
    let marked = batches
        .run("taken from the old worker", include_str!("mark.sql"), plan.queued)
        .await
        .map_err(word_refused)?;
    let pause_ends = Instant::now() + Duration::from_secs(options.pause);
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
        let (marked, not): (i64, i64) = (unmoved.get(0), unmoved.get(1));
        if not > 0 {
            say(&format!(
                "{not} went to the old worker, which had them in hand: run this again once it is done"
            ));
        }
        if marked > 0 {
            say(&format!("{marked} are marked, but could not be taken over: run this again, it says why"));
        }
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

/// The table, quoted, and its columns.
async fn describe(client: &Client, from: &str) -> Result<(String, Vec<Column>), Failure> {
    let named = client.query_typed(include_str!("table.sql"), &[(&from, Type::TEXT)]).await;
    let unreadable =
        |_| format!("--from: {from} is no name of a table: write SCHEMA.TABLE, such as public.jobs");
    let named = named.map_err(unreadable)?;
    let row = named.first().ok_or("the database answers no row")?;
    if !row.get::<_, bool>(2) {
        return Err("Punchcard's tables are not here: run `punchcard migrate` first".into());
    }
    let (name, usable): (Option<String>, Option<bool>) = (row.get(0), row.get(1));
    let table = match (name, usable) {
        (Some(name), Some(true)) => name,
        (Some(name), _) => return Err(format!("--from: {name} is not a table of an old queue").into()),
        (None, _) => return Err(format!("--from: there is no table {from}").into()),
    };
    let columns =
        client.query_typed(include_str!("columns.sql"), &[(&table, Type::TEXT)]).await.map_err(failure)?;
    let column = |row: &Row| Column { name: row.get(0), type_name: row.get(1), category: row.get(2) };
    Ok((table, columns.iter().map(column).collect()))
}

/// Whether the old table takes our mark: tried on a few rows, and rolled back.
async fn try_mark(client: &mut Client) -> Result<(), Error> {
    let trial = client.transaction().await?;
    trial.query_typed(include_str!("mark.sql"), &[(&0_i64, Type::INT8), (&10_i64, Type::INT8)]).await?;
    trial.rollback().await
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
            say(&format!("{what}: {done} ({after} of {total} looked at)"));
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

fn failure(error: Error) -> Failure {
    why(&error).into()
}

/// The server's word without its details, which show what stands in a row.
fn why(error: &Error) -> String {
    error.as_db_error().map_or_else(|| reason(error), |db| db.message().to_owned())
}

fn say(line: &str) {
    println!("{line}");
}
