//! `punchcard`: the operator's command. Reads `DATABASE_URL`; says what it did in one line a fact.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod caps;
mod credits;
mod import;
mod jobs;
mod roles;
mod webhooks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use shared::{
    db::{
        Db,
        kinds::{Charge, Kind},
        migrate,
        tokens::{TOKEN_PREFIX, token_hash},
    },
    doctor::{self, Deployment},
    domain::{Deadline, Growth},
    http_client::{Allow, vet_url},
    secrets::{SecretSource, SecretStore, Secrets},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

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
        /// How many connections are deployed at once: the functions' reserved concurrency, added up, such as 100+2+20.
        #[arg(long, value_parser = doctor::sum)]
        connections: Option<u32>,
        /// How many clients the pooler takes (Supabase: 200 on the smallest compute).
        #[arg(long)]
        max_clients: Option<u32>,
        /// RDS Proxy's metric DatabaseConnectionsCurrentlySessionPinned.
        #[arg(long)]
        pinned: Option<u32>,
    },
    /// Apply the migrations that are missing. Connect directly, not through a pooler.
    Migrate {
        /// Print them as a file of `supabase/migrations` instead.
        #[arg(long)]
        print_supabase: bool,
        /// Print only those after this one, which an earlier release had.
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
    /// Make the kinds what the file says; kinds it does not name are retired.
    Apply {
        /// The file.
        #[arg(default_value = "infra/kinds.toml")]
        file: PathBuf,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Take targets at private addresses and by plain HTTP, as a local worker may.
        #[arg(long)]
        allow_private_targets: bool,
    },
    /// Take over the jobs table of a hand-rolled queue while its old worker still runs. Connect directly, not through a
    /// pooler; run it again to go on, and as long as the old worker finishes jobs.
    Import(import::Options),
    /// Grant and show credits; audit all of them.
    #[command(subcommand)]
    Credits(credits::Credits),
    /// List, show, cancel, retry and redrive jobs.
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Bound what an account may have in the queue, and enqueue in a minute.
    #[command(subcommand)]
    Caps(caps::Caps),
    /// Look at messages that were not heard, and send them again.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Create, list and revoke service tokens.
    #[command(subcommand)]
    Tokens(Tokens),
    /// What the owner of an HTTP target needs.
    #[command(subcommand)]
    Kinds(Kinds),
}

#[derive(Subcommand)]
enum Tokens {
    /// Create a token and show it, this once.
    Create {
        name: String,
        /// enqueue, grant or operate; repeatable.
        #[arg(long = "scope", required = true, value_parser = ["enqueue", "grant", "operate"])]
        scopes: Vec<String>,
    },
    /// List names and scopes.
    List,
    /// Revoke a name's tokens, or the one in a slot; it works for up to 30 s more.
    Revoke {
        name: String,
        /// 1 or 2.
        #[arg(long)]
        slot: Option<i16>,
    },
}

#[derive(Subcommand)]
enum Kinds {
    /// Print the secret that signs a kind's jobs.
    Secret {
        kind: String,
        /// Another version than the one that the kind has now (then no database is asked).
        #[arg(long)]
        version: Option<u32>,
        /// The master secret.
        #[arg(long, env = "SIGNING_SECRET", hide_env_values = true)]
        signing_secret: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("punchcard: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let secrets = || -> Result<Secrets, Failure> {
        Ok(Secrets {
            database_url: cli.database_url.clone().ok_or("set DATABASE_URL or --database-url")?,
            pg_password: cli.password.clone(),
            pg_ca_pem: cli.ca.clone(),
            ..Secrets::default()
        })
    };
    let db = || -> Result<Db, Failure> {
        let Secrets { database_url, pg_password, pg_ca_pem, .. } = secrets()?;
        let database_url = Some(database_url);
        let source = SecretSource { database_url, pg_password, pg_ca_pem, ..SecretSource::default() };
        Ok(Db::new(Arc::new(SecretStore::new(source))))
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
            print!("{}", migrate::as_one_file(after.as_deref())?);
            Ok(())
        }
        Command::Migrate { .. } => {
            let migrated = migrate::apply_as(&secrets()?).await?;
            if migrated.renewed {
                println!("grants and policies were lost, and are made anew");
            }
            migrated.applied.iter().for_each(|name| println!("applied {name}"));
            println!("{} migrations applied", migrated.applied.len());
            Ok(())
        }
        Command::Roles { rotate, own_database } => {
            let lines = roles::create(&secrets()?, rotate.as_deref(), own_database).await?;
            lines.iter().for_each(|line| println!("{line}"));
            eprintln!("The functions connect through the pooler: give their URL its host and port.");
            Ok(())
        }
        Command::Apply { file, dry_run, allow_private_targets } => {
            let allow = if allow_private_targets { Allow::Anything } else { Allow::PublicHttps };
            apply(&db()?, &file, dry_run, allow).await
        }
        Command::Import(options) => import::import(&secrets()?, &options).await,
        Command::Credits(command) => credits::run(&db()?, command).await,
        Command::Jobs(command) => jobs::run(&db()?, command).await,
        Command::Caps(command) => caps::run(&db()?, command).await,
        Command::Webhooks(command) => webhooks::run(&db()?, command).await,
        Command::Tokens(command) => tokens(&db()?, command).await,
        Command::Kinds(Kinds::Secret { kind, version, signing_secret }) => {
            let version = match version {
                Some(version) => version,
                None => {
                    let known = db()?.list_kinds(soon()).await?;
                    let known =
                        known.iter().find(|known| known.name == kind).ok_or("there is no such kind")?;
                    known.secret_version.unsigned_abs()
                }
            };
            let signing_secret = shared::secrets::without_line_end(&signing_secret);
            println!("{}", shared::signing::kind_secret(signing_secret, &kind, version));
            Ok(())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn in_two_minutes() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindsFile {
    kinds: BTreeMap<String, Kind>,
}

/// What a tick keeps for itself: to take back, claim, settle and answer, in seconds.
const TICK_MARGIN: i32 = 10;
/// The longest attempt that fits into a tick of the template's default `PollerTimeout` of 120 s.
const LONGEST_BY_DEFAULT: i32 = 120 - TICK_MARGIN;

async fn apply(db: &Db, file: &Path, dry_run: bool, allow: Allow) -> Result<(), Failure> {
    let wanted = read_kinds(file, allow).map_err(|error| format!("{}: {error}", file.display()))?;
    let known = db.list_kinds(soon()).await?;
    let mut changes = 0;
    for kind in &wanted {
        let change = match known.iter().find(|known| known.name == kind.name) {
            Some(same) if same == kind => continue,
            Some(_) => "changed",
            None => "new",
        };
        let target = kind.url.as_deref().unwrap_or("Rust code");
        println!("{change}: {}, {} credits, {target}", kind.name, kind.price);
        if kind.timeout_seconds > LONGEST_BY_DEFAULT {
            let needed = kind.timeout_seconds + TICK_MARGIN;
            println!("  it may take {} s: deploy with PollerTimeout={needed} or more", kind.timeout_seconds);
        }
        changes += 1;
    }
    for gone in known.iter().filter(|known| !known.retired && !wanted.iter().any(|it| it.name == known.name))
    {
        println!("retired: {}; what is queued of it fails and is released", gone.name);
        changes += 1;
    }
    if !dry_run {
        db.apply_kinds(&wanted, soon()).await?;
    }
    println!("{changes} kinds {}", if dry_run { "would change" } else { "changed" });
    Ok(())
}

fn read_kinds(file: &Path, allow: Allow) -> Result<Vec<Kind>, Failure> {
    let text = std::fs::read_to_string(file)?;
    let KindsFile { kinds } = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
    let kinds = kinds.into_iter().map(|(name, kind)| {
        for url in kind.url.iter().chain(&kind.cancel_url) {
            vet_url(url, allow).map_err(|error| format!("{name}: {url}: {error}"))?;
        }
        flaw(&kind).map_or(Ok(()), |flaw| Err(format!("{name}: {flaw}")))?;
        Ok(Kind { name, ..kind })
    });
    kinds.collect()
}

/// What makes no sense together, before the database says so in its own words.
fn flaw(kind: &Kind) -> Option<&'static str> {
    if kind.on_input_error == Charge::Refuse {
        return Some("on_input_error is release or capture");
    }
    if !(-10..=10).contains(&kind.max_priority) {
        return Some("max_priority is from -10 to 10");
    }
    ((kind.backoff == Growth::Fixed) == kind.backoff_delays.is_empty())
        .then_some("backoff = \"fixed\" and backoff_delays go together")
}

async fn tokens(db: &Db, command: Tokens) -> Result<(), Failure> {
    match command {
        Tokens::Create { name, scopes } => {
            let token = format!("{TOKEN_PREFIX}{}", random_hex()?);
            let slot = db.create_token(&name, &scopes, &token_hash(&token), soon()).await?;
            slot.ok_or_else(|| format!("two tokens of {name} are valid already: revoke one first"))?;
            println!("{token}");
            eprintln!("Keep it: it is not shown again.");
            Ok(())
        }
        Tokens::List => db.list_tokens(soon()).await?.iter().try_for_each(show),
        Tokens::Revoke { name, slot } => {
            db.revoke_token(&name, slot, soon()).await?;
            println!("revoked");
            Ok(())
        }
    }
}
