//! `punchcard`: the operator's command. Reads `DATABASE_URL`; says what it did in one line a fact.

#[macro_use]
mod output;

mod accounts;
mod apply;
mod credits;
mod failure;
mod import;
mod jobs;
mod limits;
mod roles;
mod tokens;
mod webhooks;

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use serde::Serialize;
use shared::{
    db::{Db, kinds::is_name, migrate},
    doctor::{self, Deployment},
    domain::Deadline,
    secrets::{SecretSource, SecretStore, Secrets, vetted},
};

use failure::Failure;
use uuid::Uuid;

/// Operates Punchcard.
#[derive(Parser)]
#[command(name = "punchcard", version)]
struct Cli {
    /// Where the database is.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    /// The password, if the URL has none.
    #[arg(long, env = "PGPASSWORD", hide_env_values = true, global = true)]
    password: Option<String>,
    /// More certification authorities: paths of PEM files, separated by colons.
    #[arg(long, env = "PG_CA_PEM", global = true)]
    ca: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Walk the way of a connection, and say where it ends, why, and what to do. Exits with 10 and more for a failed stage.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Also look who may what in the schema, and in the functions that call it.
        #[arg(long)]
        grants: bool,
        /// How many connections are deployed at once: the functions' reserved concurrency, the poller's twice, added up, such
        /// as 100+2+2+20.
        #[arg(long, value_parser = doctor::sum)]
        connections: Option<u32>,
        /// How many clients the pooler takes (Supabase: 200 on the smallest compute).
        #[arg(long)]
        max_clients: Option<u32>,
        /// RDS Proxy's metric DatabaseConnectionsCurrentlySessionPinned.
        #[arg(long)]
        pinned: Option<u32>,
    },
    /// Apply the migrations that are missing, and the functions that have changed, and make the months to come. Connect
    /// directly, not through a pooler.
    Migrate {
        /// Print them as a file of `supabase/migrations` instead.
        #[arg(long)]
        print_supabase: bool,
        /// Print only those after this one, which an earlier release had; and all functions.
        #[arg(long, requires = "print_supabase")]
        after: Option<String>,
    },
    /// Make the roles `punchcard_migrator` and `punchcard_app`, as an administrator, and print their URLs, this once.
    Roles {
        /// Give this one another password.
        #[arg(long, value_parser = ["punchcard_migrator", "punchcard_app"])]
        rotate: Option<String>,
        /// The database is Punchcard's alone: only its owner and punchcard_migrator may create temporary objects in it.
        #[arg(long)]
        own_database: bool,
    },
    /// Make the kinds what the file says, and say what changes; kinds it does not name are retired with
    /// --prune alone.
    Apply(apply::Options),
    /// Take over the jobs table of a hand-rolled queue while its old worker still runs. Connect directly, not through a
    /// pooler; run it again to go on, and as long as the old worker finishes jobs.
    Import(import::Options),
    /// Grant and show credits; audit all of them.
    #[command(subcommand)]
    Credits(credits::Credits),
    /// Erase an account, or write out everything that there is of it.
    #[command(subcommand)]
    Accounts(accounts::Accounts),
    /// List, show, cancel, retry and redrive jobs.
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Bound what an account may have in the queue, and enqueue in a minute.
    #[command(subcommand)]
    Limits(limits::Limits),
    /// Look at messages that were not heard, and send them again.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Create, list and revoke service tokens.
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// What the owner of an HTTP target needs.
    #[command(subcommand)]
    Kinds(Kinds),
}

#[derive(Subcommand)]
enum Kinds {
    /// Print the secret that signs a kind's jobs.
    Secret {
        kind: String,
        /// Another version than the one that the kind has now (then no database is asked).
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        version: Option<u32>,
        /// The master secret, the functions' own: 32 bytes at least.
        #[arg(long, env = "SIGNING_SECRET", hide_env_values = true)]
        signing_secret: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("punchcard: {}", failure::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    // A variable that is empty says nothing, as in the functions.
    let said = |value: &Option<String>| {
        value.as_deref().map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let secrets = || -> Result<Secrets, Failure> {
        Ok(Secrets {
            database_url: said(&cli.database_url).ok_or("set DATABASE_URL or --database-url")?,
            pg_password: said(&cli.password),
            pg_ca_pem: said(&cli.ca),
            ..Secrets::default()
        })
    };
    let unchecked = || -> Result<Db, Failure> {
        let Secrets { database_url, pg_password, pg_ca_pem, .. } = secrets()?;
        let database_url = Some(database_url);
        let source = SecretSource { database_url, pg_password, pg_ca_pem, ..SecretSource::default() };
        Ok(Db::for_operator(Arc::new(SecretStore::new(source))))
    };
    // To whom rows are hidden, no command says that there are none.
    let db = async || -> Result<Db, Failure> {
        let db = unchecked()?;
        match db.hidden(soon()).await? {
            Some(hidden) => Err(hidden.into()),
            None => Ok(db),
        }
    };
    match cli.command {
        Command::Doctor { json, grants, connections, max_clients, pinned } => {
            let deployment = Deployment { clients: connections, max_clients, pinned };
            let report = doctor::examine(&secrets()?, &deployment, grants, in_two_minutes()).await;
            match json {
                true => show(&report)?,
                false => report.lines().iter().for_each(|line| println!("{line}")),
            }
            return Ok(ExitCode::from(report.exit_code()));
        }
        Command::Migrate { print_supabase: true, after } => {
            output::text(&migrate::as_one_file(after.as_deref())?);
            Ok(())
        }
        Command::Migrate { .. } => {
            let migrated = migrate::apply_as(&secrets()?).await?;
            if migrated.renewed {
                println!("grants and policies were lost, and are made anew");
            }
            migrated.applied.iter().for_each(|name| println!("applied {name}"));
            println!("{} migrations and {} functions applied", migrated.applied.len(), migrated.functions);
            if let Some(why) = migrated.months_wait {
                println!("months to come are left to the next tick: {why}");
            }
            Ok(())
        }
        Command::Roles { rotate, own_database } => {
            let lines = roles::create(&secrets()?, rotate.as_deref(), own_database).await?;
            lines.iter().for_each(|line| println!("{line}"));
            eprintln!("The functions connect through the pooler: give their URL its host and port.");
            Ok(())
        }
        Command::Apply(options) => apply::apply(secrets, db, &options).await,
        Command::Import(options) => import::import(&secrets()?, &options).await,
        // The audit has a finding for each.
        Command::Credits(command @ credits::Credits::Audit) => credits::run(&unchecked()?, command).await,
        Command::Credits(command) => credits::run(&db().await?, command).await,
        Command::Accounts(command) => accounts::run(&db().await?, command).await,
        Command::Jobs(command) => jobs::run(&db().await?, command).await,
        Command::Limits(command) => limits::run(&db().await?, command).await,
        Command::Webhooks(command) => webhooks::run(&db().await?, command).await,
        Command::Tokens(command) => tokens::run(&db().await?, command).await,
        Command::Kinds(Kinds::Secret { kind, version, signing_secret }) => {
            let master = vetted("SIGNING_SECRET", said(&Some(signing_secret)))?;
            let master =
                master.ok_or("SIGNING_SECRET is empty: it is the functions' own, of 32 bytes at least")?;
            if !is_name(&kind) {
                return Err("the name of a kind is 1 to 64 of a-z, 0-9, _, . and -".into());
            }
            let version = match version {
                Some(version) => version,
                None => {
                    let known = db().await?.list_kinds(soon()).await?;
                    let known = known.iter().find(|known| known.name == kind);
                    known.ok_or_else(|| format!("there is no kind {kind}"))?.secret_version.unsigned_abs()
                }
            };
            println!("{}", shared::signing::kind_secret(&master, &kind, version));
            Ok(())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn in_ten_minutes() -> Deadline {
    Deadline::after(Duration::from_secs(600))
}

fn in_two_minutes() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A name that nothing else has.
fn random_name() -> Result<Uuid, Failure> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Ok(Uuid::from_bytes(random))
}

/// 256 random bits.
fn random_hex() -> Result<String, Failure> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn show(value: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
