//! `punchcard limits`: what bounds an account beside its credits.

use std::str::FromStr;

use clap::Subcommand;
use shared::db::{Db, life::NamedLimits};
use uuid::Uuid;

use crate::{Failure, soon};

/// What lifts a limit.
const LIFTED: &str = "none";

#[derive(Subcommand)]
pub(crate) enum Limits {
    /// Show all limits.
    Show,
    /// Set the limits that are named, of an account or of all that have none of their own; `none` lifts one,
    /// and what is not named stays. An account that gets its first begins with those of all others.
    Set {
        /// The account; without one, all others.
        account: Option<Uuid>,
        /// Jobs that are queued or running, or none.
        #[arg(long, value_parser = |text: &str| limit(text, 0, i32::MAX))]
        unfinished_jobs: Option<Limit<i32>>,
        /// Bytes of their inputs, or none.
        #[arg(long, value_parser = |text: &str| limit(text, 0, i64::MAX))]
        unfinished_bytes: Option<Limit<i64>>,
        /// Jobs enqueued in a minute, or none.
        #[arg(long, value_parser = |text: &str| limit(text, 1, 1_000_000))]
        enqueues_per_minute: Option<Limit<i32>>,
    },
}

/// A limit as it is given; `None` lifts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit<T>(Option<T>);

fn limit<T>(text: &str, from: T, to: T) -> Result<Limit<T>, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    if text == LIFTED {
        return Ok(Limit(None));
    }
    let number = text.parse().ok().filter(|number| from <= *number && *number <= to);
    number
        .map(|number| Limit(Some(number)))
        .ok_or_else(|| format!("it is a whole number from {from} to {to}, or {LIFTED}"))
}

pub(crate) async fn run(db: &Db, command: Limits) -> Result<(), Failure> {
    let whose = |account: Uuid| match account.is_nil() {
        true => "all others".to_owned(),
        false => account.to_string(),
    };
    match command {
        Limits::Show => {
            for (account, limits) in db.limits(soon()).await? {
                println!("{}: {}", whose(account), serde_json::to_string(&limits)?);
            }
            Ok(())
        }
        Limits::Set { account, unfinished_jobs, unfinished_bytes, enqueues_per_minute } => {
            let limits = NamedLimits {
                unfinished_jobs: unfinished_jobs.map(|limit| limit.0),
                unfinished_bytes: unfinished_bytes.map(|limit| limit.0),
                enqueues_per_minute: enqueues_per_minute.map(|limit| limit.0),
            };
            if limits == NamedLimits::default() {
                let all = "--unfinished-jobs, --unfinished-bytes or --enqueues-per-minute";
                return Err(format!("name a limit: {all}, each with a number or {LIFTED}").into());
            }
            let account = account.unwrap_or(Uuid::nil());
            let now = db.set_limits(account, limits, soon()).await?;
            println!("{}: {}", whose(account), serde_json::to_string(&now)?);
            Ok(())
        }
    }
}
