//! `punchcard credits`: grants, balances, shares, the audit, and where credits come from.

use std::cell::Cell;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use shared::{
    db::{Db, audit::AuditPlace, credits::CreditSource},
    domain::Timestamp,
};
use uuid::Uuid;

use crate::{Failure, in_ten_minutes, random_name, show, soon};

#[derive(Subcommand)]
pub(crate) enum Credits {
    /// Grant credits, once for each key.
    Grant {
        account: Uuid,
        amount: i64,
        /// Names this grant: the same key grants once.
        #[arg(long)]
        key: String,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
        /// When what is left of them lapses, as an RFC 3339 time: 2026-12-01T00:00:00Z. Never without it.
        #[arg(long, value_parser = time_of)]
        expires_at: Option<Timestamp>,
    },
    /// Show an account's balance and latest entries.
    Show { account: Uuid },
    /// Spread an account's credits over shares, so that as many buyers go at once; 1 brings them together again.
    Spread {
        account: Uuid,
        /// 1 to 64.
        #[arg(long)]
        shares: i32,
    },
    /// Give back what was captured for a job, once.
    Refund {
        job: Uuid,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Check every invariant, a part of the accounts after the other; fails if one is broken.
    Audit,
    /// Draw credits from a table of your own, and return refunds there.
    #[command(subcommand)]
    Source(Source),
}

#[derive(Subcommand)]
pub(crate) enum Source {
    /// Take a table of balances as the source; it is tried on one account, and rolled back.
    Use {
        /// The table with its schema, such as public.user_credits.
        table: String,
        /// Its column of accounts, uuid or text.
        #[arg(long, default_value = "user_id")]
        account: String,
        /// Its column of balances.
        #[arg(long, default_value = "credits")]
        balance: String,
        /// The function that moves credits, such as public.increment_user_credits; without it, the table is updated.
        #[arg(long)]
        function: Option<String>,
        /// The value of a further argument of the function; repeatable.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        constants: Vec<String>,
        /// Even if Punchcard's own accounts have credits: they go to the table as they come free.
        #[arg(long)]
        force: bool,
    },
    /// Show it, and how many credits wait to be returned there.
    Show,
    /// Leave it: from now on credits come from grants alone.
    Drop {
        /// Even if credits that were drawn from it are in Punchcard's accounts: they stay there.
        #[arg(long)]
        force: bool,
    },
}

fn time_of(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("it is an RFC 3339 time with its offset, such as 2026-12-01T00:00:00Z")
}

pub(crate) async fn run(db: &Db, command: Credits) -> Result<(), Failure> {
    match command {
        Credits::Grant { account, amount, key, reason, expires_at } => {
            let (reason, lapses) = (reason.as_deref(), expires_at.map(|time| time.to_string()));
            let (entry, replayed) =
                db.grant(account, amount, &key, reason, lapses.as_deref(), soon()).await?;
            show(&entry)?;
            if let Some(time) = expires_at {
                println!("what is left of them lapses at {time}");
            }
            if replayed {
                println!("granted before with this key: nothing moved");
            }
            Ok(())
        }
        Credits::Show { account } => {
            show(&db.balance(account, soon()).await?)?;
            let (mut left, mut before) = (20, None);
            while left > 0 {
                let page = db.ledger(account, before, left, soon()).await?;
                page.entries.iter().try_for_each(show)?;
                left -= page.entries.len() as i64;
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            Ok(())
        }
        Credits::Spread { account, shares } => {
            db.spread_account(account, shares, soon()).await?;
            println!("buyers use {shares} shares");
            Ok(())
        }
        Credits::Refund { job, reason } => {
            let (account, amount) = db.refund(job, reason.as_deref(), soon()).await?;
            println!("refunded {amount} to {account}");
            Ok(())
        }
        Credits::Source(command) => source(db, command).await,
        Credits::Audit => {
            let (name, looked_at) = (random_name()?, Cell::new(0));
            tokio::select! {
                done = audit(db, name, &looked_at) => done,
                Ok(()) = tokio::signal::ctrl_c() => {
                    db.stop_audit(name, soon()).await?;
                    let at = looked_at.get();
                    Err(format!("stopped after {at} entries, with the findings above; the next audit begins anew").into())
                }
            }
        }
    }
}

/// All of history, a part after the other.
async fn audit(db: &Db, name: Uuid, looked_at: &Cell<i64>) -> Result<(), Failure> {
    let entries = db.count_entries(soon()).await?;
    let bar = ProgressBar::new(u64::try_from(entries).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left") {
        bar.set_style(style);
    }
    let (mut place, mut findings) = (Some(AuditPlace::default()), 0);
    while let Some(from) = place {
        // An account of millions of jobs is a part by itself.
        let part = db.audit(name, from, in_ten_minutes()).await?;
        bar.suspend(|| part.findings.iter().try_for_each(show))?;
        findings += part.findings.len();
        looked_at.set(looked_at.get() + part.entries);
        bar.set_position(u64::try_from(looked_at.get()).unwrap_or_default());
        place = part.next;
    }
    bar.finish_and_clear();
    if findings > 0 {
        return Err(format!("{findings} findings: stop granting and refunding by hand, and look").into());
    }
    println!("audit clean");
    Ok(())
}

async fn source(db: &Db, command: Source) -> Result<(), Failure> {
    match command {
        Source::Use { table, account, balance, function, constants, force } => {
            let mut values = serde_json::Map::new();
            for constant in &constants {
                let (name, value) = constant.split_once('=').ok_or("--set wants NAME=VALUE")?;
                if values.insert(name.to_owned(), value.into()).is_some() {
                    return Err(format!("--set says twice what {name} is").into());
                }
            }
            let source = CreditSource { table, account_column: account, balance_column: balance, function };
            let constants = serde_json::Value::Object(values).to_string();
            let warnings = db.use_credit_source(&source, &constants, force, soon()).await?;
            warnings.iter().for_each(|warning| println!("warning: {warning}"));
            println!("credits are drawn from {}", source.table);
            Ok(())
        }
        Source::Show => match db.credit_source(soon()).await? {
            Some((source, waiting, held)) => {
                show(&source)?;
                println!("{waiting} credits wait to be returned, {held} are held for jobs");
                Ok(())
            }
            None => {
                println!("credits come from grants");
                Ok(())
            }
        },
        Source::Drop { force } => {
            let known = db.credit_source(soon()).await?;
            let here = known.filter(|(_, waiting, held)| waiting + held > 0);
            let here = here.map(|(source, waiting, held)| {
                format!("{waiting} available and {held} held credits were drawn from {}", source.table)
            });
            match (db.drop_credit_source(force, soon()).await?, here) {
                (None, _) => println!("credits come from grants: there is no source"),
                (Some(true), here) => {
                    here.iter().for_each(|here| println!("{here} and stay in Punchcard's accounts"));
                    println!("credits come from grants");
                }
                (Some(false), here) => {
                    let here = here.unwrap_or_else(|| "credits were drawn from it".into());
                    return Err(format!(
                        "{here} and are in Punchcard's accounts: wait until they have returned, or leave \
                         them there with --force"
                    )
                    .into());
                }
            }
            Ok(())
        }
    }
}
