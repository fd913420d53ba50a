//! `punchcard webhooks`: what was said of jobs and not heard.

use clap::Subcommand;
use shared::db::Db;
use uuid::Uuid;

use crate::{Failure, show, soon};

#[derive(Subcommand)]
pub(crate) enum Webhooks {
    /// List messages that were given up, or that failed and are sent again, newest first.
    Failed {
        /// Of this account.
        #[arg(long)]
        account: Option<Uuid>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
    },
    /// Send a message again with the next tick, whatever became of it; if that fails, too, by the rest of its schedule.
    Resend { delivery: Uuid },
}

pub(crate) async fn run(db: &Db, command: Webhooks) -> Result<(), Failure> {
    match command {
        Webhooks::Failed { account, limit } => {
            let (mut left, mut before) = (limit, None);
            while left > 0 {
                let (messages, next) = db.undelivered(account, left.min(500), before, soon()).await?;
                messages.iter().try_for_each(show)?;
                left -= i64::try_from(messages.len())?;
                before = next;
                if before.is_none() {
                    break;
                }
            }
            Ok(())
        }
        Webhooks::Resend { delivery } => {
            if !db.resend(delivery, soon()).await? {
                return Err("there is no such message".into());
            }
            println!("due");
            Ok(())
        }
    }
}
