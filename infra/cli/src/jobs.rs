//! `punchcard jobs`: what is queued, what became of it, and the dead letters.

use clap::{Args, Subcommand};
use shared::{
    db::{
        Db,
        jobs::JobFilter,
        life::{FailedFilter, RedrivePace},
    },
    domain::Status,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{Failure, show, soon};

/// How many failed jobs one statement redrives.
const PAGE: i32 = 500;

#[derive(Subcommand)]
pub(crate) enum Jobs {
    /// List an account's jobs, newest first.
    List {
        account: Uuid,
        /// Only those of this status.
        #[arg(long, value_parser = |word: &str| Status::parse(word).ok_or("no such status"))]
        status: Option<Status>,
        /// Only those with this tag, or key=value of the metadata; repeatable.
        #[arg(long = "label")]
        labels: Vec<String>,
    },
    /// Show one job, and its runs.
    Show { id: Uuid },
    /// Cancel a job: a queued one at once, a running one by asking its worker.
    Cancel { id: Uuid },
    /// Buy a failed or canceled job once more, as a new job with a hold of its own.
    Retry { id: Uuid },
    /// List failed jobs, newest first: the dead letters.
    Failed {
        #[command(flatten)]
        filter: Filter,
        /// Of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
    },
    /// Retry failed jobs of a kind in bulk, oldest first: each is bought once more by its account.
    Redrive {
        /// Of this kind.
        kind: String,
        #[command(flatten)]
        filter: Filter,
        /// How many at most; all, if not given.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// How many of them are due each second, 0.001 to 10000; all at once, if not given.
        #[arg(long, value_name = "JOBS", value_parser = rate)]
        per_second: Option<f64>,
        /// Only list what would be retried.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which failed jobs.
#[derive(Args)]
pub(crate) struct Filter {
    /// Whose error has this code, such as timed_out.
    #[arg(long)]
    code: Option<String>,
    /// Of this account.
    #[arg(long)]
    account: Option<Uuid>,
    /// That failed at this time or later, such as 2026-11-24T10:00:00Z.
    #[arg(long, value_parser = time)]
    from: Option<String>,
    /// That failed before this time.
    #[arg(long, value_parser = time)]
    until: Option<String>,
}

/// A time with its offset: without one it would be read in the database's zone, whatever that is.
fn time(text: &str) -> Result<String, &'static str> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|time| time.year() > 0);
    parsed.map(|_| text.to_owned()).ok_or("it is a time with its offset, such as 2026-11-24T10:00:00Z")
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate| (0.001..=10_000.0).contains(rate));
    rate.ok_or("it is a number from 0.001 to 10000")
}

/// That there is such a kind: of one that is misspelt there are no failed jobs either.
async fn known(db: &Db, kind: &str) -> Result<(), Failure> {
    match db.list_kinds(soon()).await?.iter().any(|known| known.name == kind) {
        true => Ok(()),
        false => Err(format!("there is no kind {kind}").into()),
    }
}

impl Filter {
    fn of(self, kind: Option<String>) -> FailedFilter {
        FailedFilter { kind, code: self.code, account_id: self.account, from: self.from, until: self.until }
    }
}

pub(crate) async fn run(db: &Db, command: Jobs) -> Result<(), Failure> {
    match command {
        Jobs::List { account, status, labels } => {
            let statuses = status.into_iter().collect();
            list(db, account, JobFilter { statuses, labels, ..JobFilter::default() }).await
        }
        Jobs::Show { id } => {
            show(&db.find_job(id, None, soon()).await?.ok_or("there is no such job")?)?;
            let (mut after, mut more) = (0, true);
            while more {
                let runs;
                (runs, more) = db.runs(id, None, after, PAGE.into(), soon()).await?;
                runs.iter().try_for_each(show)?;
                after = runs.last().map_or(after, |run| run.number);
            }
            Ok(())
        }
        Jobs::Cancel { id } => show(&db.cancel_and_show(id, None, soon()).await?),
        Jobs::Retry { id } => {
            let retried = db.retry(id, None, soon()).await?;
            println!("retried as {}", retried.job_id);
            Ok(())
        }
        Jobs::Failed { filter, kind, limit } => {
            if let Some(kind) = &kind {
                known(db, kind).await?;
            }
            let (filter, mut left, mut after) = (filter.of(kind), limit, None);
            while left > 0 {
                let page = db.failed_jobs(&filter, left.min(PAGE.into()), after, soon()).await?;
                page.jobs.iter().try_for_each(show)?;
                left -= i64::try_from(page.jobs.len())?;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            Ok(())
        }
        Jobs::Redrive { kind, filter, limit, per_second, dry_run } => {
            known(db, &kind).await?;
            let filter = filter.of(Some(kind));
            let limit = limit.map_or(usize::MAX, |limit| limit as usize);
            if dry_run {
                preview(db, &filter, limit).await
            } else {
                redrive(db, &filter, limit, per_second).await
            }
        }
    }
}

/// The newest fifty, in as many looks as it takes.
async fn list(db: &Db, account: Uuid, mut filter: JobFilter) -> Result<(), Failure> {
    let mut left = 50;
    while left > 0 {
        let page = db.list_jobs(account, &filter, left, soon()).await?;
        page.jobs.iter().try_for_each(show)?;
        left -= i64::try_from(page.jobs.len())?;
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    Ok(())
}

/// What a redrive would take, page after page.
async fn preview(db: &Db, filter: &FailedFilter, limit: usize) -> Result<(), Failure> {
    let (mut shown, mut after) = (0, None);
    while shown < limit {
        let page = db.redrivable_jobs(filter, i64::from(page_of(limit - shown)), after, soon()).await?;
        page.jobs.iter().try_for_each(show)?;
        shown += page.jobs.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// How many jobs of those that are left one statement takes on.
fn page_of(left: usize) -> i32 {
    i32::try_from(left).map_or(PAGE, |left| left.min(PAGE))
}

/// Page after page, each due after the one before it.
async fn redrive(
    db: &Db,
    filter: &FailedFilter,
    limit: usize,
    per_second: Option<f64>,
) -> Result<(), Failure> {
    let (mut done, mut refused, mut after) = (0, 0, None);
    while done < limit {
        let delay = per_second.map_or(0.0, |rate| done as f64 / rate);
        let pace = RedrivePace { limit: page_of(limit - done), per_second, delay, after };
        let page = db.redrive(filter, pace, soon()).await?;
        done += page.jobs.len();
        for job in page.jobs.iter().filter(|job| job.refused.is_some()) {
            show(job)?;
            refused += 1;
        }
        eprintln!("{} retried so far", done - refused);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!("{} retried, {refused} refused", done - refused);
    Ok(())
}
