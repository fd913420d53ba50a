//! `cargo xtask fuzz-api`: schemathesis reads the document that the API serves, and makes requests up from it, valid and
//! invalid ones, as two users, a service and nobody. No answer may be a 5xx, or missing from the document; every operation
//! must answer 2xx at least once; and then the audit must be clean.

mod report;
mod world;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::ProgressBar;
use local::Result;
use local::gateway::Gateway;
use local::lambda::Function;
use local::tools;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::stack::{Database, Keys};
use crate::{cargo, interruption, progress, run, step};
use report::Report;
use world::World;

const CONFIG: &str = include_str!("schemathesis.toml");
const HOOKS: &str = include_str!("hooks.py");
/// Longer than any run takes.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);
/// Those who call do so at once, each one request after the other: so a seed makes the same requests up again.
const CALLERS: usize = 4;
/// Without a token all is refused alike: so many examples are enough.
const EXAMPLES_OF_NOBODY: u32 = 10;

/// Who calls.
struct Identity {
    name: &'static str,
    /// What the hooks know it by: its account, `service` or `nobody`.
    word: String,
    token: Option<String>,
}

/// With so many examples for each operation and identity, made up from the seed.
pub(crate) async fn fuzz(examples: u32, seed: Option<u32>) -> Result<()> {
    let seed = seed.unwrap_or_else(|| Uuid::new_v4().as_fields().0);
    println!(
        "seed {seed}: the same requests again by `cargo xtask fuzz-api --examples {examples} --seed {seed}`"
    );
    run(cargo(&["build", "-p", "api", "-p", "worker", "--bins"]))?;
    let schemathesis = step("schemathesis", tools::schemathesis)?;
    let database = Database::create("fuzz").await?;
    let report = tokio::select! {
        report = try_all(&schemathesis, &database, examples, seed) => report,
        () = interruption() => Err("interrupted".into()),
    };
    database.remove().await?;
    report
}

async fn try_all(schemathesis: &Path, database: &Database, examples: u32, seed: u32) -> Result<()> {
    let folder = tools::target_dir().join("fuzz");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("schemathesis.toml"), CONFIG)?;
    fs::write(folder.join("punchcard_hooks.py"), HOOKS)?;
    let keys = Keys::new();
    let world = World::create(database, &keys, folder.join("pool.json")).await?;
    let api = tools::target_dir().join("debug/api");
    let api = Arc::new(Function::new(api, keys.environment(&database.url())).max_concurrency(CALLERS));
    let report = Arc::new(Mutex::new(Report::of(&document()?)));
    let seen = Arc::clone(&report);
    let gateway = Gateway::start(Arc::clone(&api), move |call| report::lock(&seen).add(&call)).await?;
    println!("the API is served at {} (logs: {})", gateway.url(), folder.display());

    // Dropped, it ends them.
    let mut callers = JoinSet::new();
    for identity in identities(database, &keys, &world).await? {
        let examples = if identity.token.is_some() { examples } else { EXAMPLES_OF_NOBODY };
        let mut command = command(schemathesis, &folder, &gateway.url(), &identity, examples, seed)?;
        callers.spawn(async move { (identity.name, command.status().await) });
    }
    let spinner = progress("as two users, a service and nobody");
    let failed = tokio::select! {
        failed = all(&mut callers, &spinner, &report) => failed?,
        error = world.turn() => return Err(error),
    };
    spinner.finish_and_clear();
    let mut faults = report::lock(&report).show();
    for name in failed {
        let log = log(&folder, name);
        println!("\n{}", failures(&fs::read_to_string(&log)?));
        faults.push(format!("as {name}: see {}", log.display()));
    }
    println!();
    faults.extend(world.missing().await?);
    let findings = world.audit().await?;
    println!("audit: {}", if findings.is_empty() { "clean" } else { "not clean" });
    faults.extend(findings);
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults.join("\n").into()),
    }
}

/// Waits for all callers, and answers who found something.
async fn all(
    callers: &mut JoinSet<(&'static str, std::io::Result<ExitStatus>)>,
    spinner: &ProgressBar,
    report: &Mutex<Report>,
) -> Result<Vec<&'static str>> {
    let mut failed = Vec::new();
    // Where there is no terminal, a line now and then.
    let pause = Duration::from_secs(if spinner.is_hidden() { 30 } else { 1 });
    loop {
        let ended = tokio::select! {
            ended = callers.join_next() => ended,
            () = sleep(pause) => {
                let said = format!("{} requests", report::lock(report).calls());
                if spinner.is_hidden() {
                    eprintln!("{said} ...");
                }
                spinner.set_message(said);
                continue;
            }
        };
        let Some(ended) = ended else { return Ok(failed) };
        let (name, status) = ended?;
        let sound = status?.success();
        spinner
            .suspend(|| println!("as {name}: {}", if sound { "nothing found" } else { "something found" }));
        if !sound {
            failed.push(name);
        }
    }
}

/// The document as it is kept: what is served is the same.
fn document() -> Result<serde_json::Value> {
    let text = fs::read_to_string(tools::workspace().join("functions/api/openapi.json"))?;
    Ok(serde_json::from_str(&text)?)
}

async fn identities(database: &Database, keys: &Keys, world: &World) -> Result<Vec<Identity>> {
    let token = format!("{}{}", shared::db::tokens::TOKEN_PREFIX, Uuid::new_v4().simple());
    let hash = shared::db::tokens::token_hash(&token);
    let insert = "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256)
                  VALUES ('fuzz', 1, '{enqueue,grant,operate}', $1)";
    database.connect().await?.execute_typed(insert, &[(&hash, Type::BYTEA)]).await?;
    let user = |name, account: Uuid| -> Result<Identity> {
        Ok(Identity { name, word: account.to_string(), token: Some(keys.token(account, TOKEN_LIFE)?) })
    };
    let [one, two] = world.accounts;
    Ok(vec![
        user("one user", one)?,
        user("another user", two)?,
        Identity { name: "a service", word: "service".into(), token: Some(token) },
        Identity { name: "nobody", word: "nobody".into(), token: None },
    ])
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}.log", name.replace(' ', "-")))
}

fn command(
    schemathesis: &Path,
    folder: &Path,
    url: &str,
    identity: &Identity,
    examples: u32,
    seed: u32,
) -> Result<Command> {
    let log = File::create(log(folder, identity.name))?;
    let mut command = Command::new(schemathesis);
    command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.args(["--config-file", "schemathesis.toml", "--no-color", "run"]);
    command.arg(format!("{url}/api/openapi.json"));
    command.args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()]);
    command.args(["--workers", "1", "--checks", "all", "--request-timeout", "30"]);
    // Whoever asks to wait may wait for 25 seconds.
    command.args(["--max-response-time", "28"]);
    if let Some(token) = &identity.token {
        command.arg("--header").arg(format!("Authorization: Bearer {token}"));
    }
    command.env("SCHEMATHESIS_HOOKS", "punchcard_hooks").env("PYTHONPATH", folder);
    command.env("PUNCHCARD_POOL", folder.join("pool.json")).env("PUNCHCARD_IDENTITY", &identity.word);
    Ok(command)
}

/// What a log says of failures, not of progress.
fn failures(log: &str) -> &str {
    log.find("= FAILURES =").or_else(|| log.find("= ERRORS =")).map_or(log, |at| &log[at..])
}
