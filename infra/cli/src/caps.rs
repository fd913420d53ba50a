//! `punchcard caps`: what bounds an account beside its credits.

use clap::Subcommand;
use shared::db::{Db, life};
use uuid::Uuid;

use crate::{Failure, soon};

#[derive(Subcommand)]
pub(crate) enum Caps {
    /// Show all caps.
    Show,
    /// Set the caps of an account, or of all that have none of their own; what is not given is not bounded.
    Set {
        /// The account; without one, all others.
        account: Option<Uuid>,
        /// Jobs that are queued or running.
        #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
        unfinished_jobs: Option<i32>,
        /// Bytes of their inputs.
        #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
        unfinished_bytes: Option<i64>,
        /// Jobs enqueued in a minute.
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
        enqueues_per_minute: Option<i32>,
    },
}

pub(crate) async fn run(db: &Db, command: Caps) -> Result<(), Failure> {
    match command {
        Caps::Show => {
            for (account, caps) in db.caps(soon()).await? {
                let whose = if account.is_nil() { "all others".to_owned() } else { account.to_string() };
                println!("{whose}: {}", serde_json::to_string(&caps)?);
            }
            Ok(())
        }
        Caps::Set { account, unfinished_jobs, unfinished_bytes, enqueues_per_minute } => {
            let caps = life::Caps { unfinished_jobs, unfinished_bytes, enqueues_per_minute };
            db.set_caps(account.unwrap_or(Uuid::nil()), caps, soon()).await?;
            println!("set");
            Ok(())
        }
    }
}
