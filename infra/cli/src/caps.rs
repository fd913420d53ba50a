//! `punchcard caps`: what bounds an account beside its credits.

use std::str::FromStr;

use clap::Subcommand;
use shared::db::{Db, life::NamedCaps};
use uuid::Uuid;

use crate::{Failure, soon};

/// What lifts a cap.
const LIFTED: &str = "none";

#[derive(Subcommand)]
pub(crate) enum Caps {
    /// Show all caps.
    Show,
    /// Set the caps that are named, of an account or of all that have none of their own; `none` lifts one,
    /// and what is not named stays. An account that gets its first begins with those of all others.
    Set {
        /// The account; without one, all others.
        account: Option<Uuid>,
        /// Jobs that are queued or running, or none.
        #[arg(long, value_parser = |text: &str| cap(text, 0, i32::MAX))]
        unfinished_jobs: Option<Cap<i32>>,
        /// Bytes of their inputs, or none.
        #[arg(long, value_parser = |text: &str| cap(text, 0, i64::MAX))]
        unfinished_bytes: Option<Cap<i64>>,
        /// Jobs enqueued in a minute, or none.
        #[arg(long, value_parser = |text: &str| cap(text, 1, 1_000_000))]
        enqueues_per_minute: Option<Cap<i32>>,
    },
}

/// A cap as it is given; `None` lifts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cap<T>(Option<T>);

fn cap<T>(text: &str, from: T, to: T) -> Result<Cap<T>, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    if text == LIFTED {
        return Ok(Cap(None));
    }
    let number = text.parse().ok().filter(|number| from <= *number && *number <= to);
    number
        .map(|number| Cap(Some(number)))
        .ok_or_else(|| format!("it is a whole number from {from} to {to}, or {LIFTED}"))
}

pub(crate) async fn run(db: &Db, command: Caps) -> Result<(), Failure> {
    let whose = |account: Uuid| match account.is_nil() {
        true => "all others".to_owned(),
        false => account.to_string(),
    };
    match command {
        Caps::Show => {
            for (account, caps) in db.caps(soon()).await? {
                println!("{}: {}", whose(account), serde_json::to_string(&caps)?);
            }
            Ok(())
        }
        Caps::Set { account, unfinished_jobs, unfinished_bytes, enqueues_per_minute } => {
            let caps = NamedCaps {
                unfinished_jobs: unfinished_jobs.map(|cap| cap.0),
                unfinished_bytes: unfinished_bytes.map(|cap| cap.0),
                enqueues_per_minute: enqueues_per_minute.map(|cap| cap.0),
            };
            if caps == NamedCaps::default() {
                let all = "--unfinished-jobs, --unfinished-bytes or --enqueues-per-minute";
                return Err(format!("name a cap: {all}, each with a number or {LIFTED}").into());
            }
            let account = account.unwrap_or(Uuid::nil());
            let now = db.set_caps(account, caps, soon()).await?;
            println!("{}: {}", whose(account), serde_json::to_string(&now)?);
            Ok(())
        }
    }
}
