//! `cargo xtask`: the developer's one entry, the same in CI.

#[macro_use]
#[path = "../../cli/src/output.rs"]
mod output;

mod clients;
mod demo;
mod dev;
mod foreground;
mod fuzz;
mod simulate;
mod stack;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, Subcommand};
use foreground::{cargo, interruption, pass_interruptions_on, run};
use local::Result;
use local::tools;

#[derive(Parser)]
#[command(about = "Punchcard's developer commands")]
enum Xtask {
    #[command(flatten)]
    Do(Task),
}

#[derive(Subcommand)]
enum Task {
    /// All tests: units, then integration through PgBouncer (transaction mode); then what is about the database and its
    /// connections also directly, in session mode and on the newest PostgreSQL.
    Test {
        /// Units, and then all integration tests directly, with no PgBouncer: the quickest way to run a few.
        #[arg(long)]
        direct_only: bool,
        /// How many random sequences the property test runs; 2,000 if not given. All of them alone:
        /// `--direct-only --sequences 100000 -- life::property`.
        #[arg(long)]
        sequences: Option<u64>,
        /// Passed on to the integration tests.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Format, clippy and template lint.
    Check,
    /// Writes `functions/api/openapi.json`, the description of the API, from its code.
    Openapi,
    /// Lints that description, by redocly and spectral; needs Node.js and npm.
    LintApi,
    /// Clients that are generated from it, in TypeScript and Python, against the real API; needs Node.js and npm.
    Clients,
    /// Requests made up from the served OpenAPI document, valid and invalid: no 5xx, and no answer that is not documented.
    FuzzApi {
        /// Of each operation, for each of those who call.
        #[arg(long, default_value_t = 200)]
        examples: u32,
        /// Makes the same requests up again.
        #[arg(long)]
        seed: Option<u32>,
    },
    /// Release builds of every function, by cargo-lambda.
    Build {
        /// With the feature `sqs`, for a deployment with EnableSqs=true.
        #[arg(long)]
        sqs: bool,
    },
    /// Measures ours, the raw statements and rivals side by side; `-- --help` for its options.
    Bench {
        /// Passed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Ten jobs end to end, through `cargo lambda watch`.
    Demo,
    /// The system to play with until Ctrl-C: PostgreSQL, `cargo lambda watch`, and a tick a minute.
    Dev {
        /// With SQS: an emulator, and a pump that delivers as Lambda's event source mapping does.
        #[arg(long)]
        sqs: bool,
    },
    /// Models what cannot be had on this machine.
    #[command(subcommand)]
    Simulate(simulate::Simulation),
    /// A migrated PostgreSQL until Ctrl-C.
    Db,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Xtask::Do(task) = Xtask::parse();
    pass_interruptions_on();
    let work = async {
        match task {
            Task::Test { direct_only, sequences, filter } => {
                test::test(direct_only, sequences, &filter).await
            }
            Task::Check => check(),
            Task::Openapi => openapi(),
            Task::LintApi => lint_api(),
            Task::Clients => clients::clients().await,
            Task::FuzzApi { examples, seed } => fuzz::fuzz(examples, seed).await,
            Task::Build { sqs } => build(sqs),
            Task::Bench { options } => bench(&options),
            Task::Demo => demo::demo().await,
            Task::Dev { sqs } => dev::dev(sqs).await,
            Task::Simulate(simulation) => {
                simulate::run(&simulation);
                Ok(())
            }
            Task::Db => db().await,
        }
    };
    match work.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The database's own words are the source of its error.
            let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
            eprintln!("xtask: {error}{source}");
            ExitCode::FAILURE
        }
    }
}

/// How programs are built.
#[derive(Clone, Copy)]
enum Build {
    Debug,
    /// As what is deployed.
    Release,
}

/// Builds the functions, with the features of the deployed ones (and so of those that `cargo lambda watch` builds) and no more;
/// and beside them, in `with-sqs`, with the feature `sqs`. Answers their folder.
fn functions(build: Build) -> Result<PathBuf> {
    let (flags, folder): (&[&str], _) = match build {
        Build::Debug => (&[], "debug"),
        Build::Release => (&["--release"], "release"),
    };
    let folder = tools::target_dir().join(folder);
    for features in [Some(stack::WITH_SQS), None] {
        let mut build = cargo(&["build", "-p", "api", "-p", "worker", "--bins"]);
        build.args(flags).args(features.map(|features| format!("--features={features}")));
        run(build)?;
        if features.is_some() {
            keep_with_sqs(&folder)?;
        }
    }
    Ok(folder)
}

fn keep_with_sqs(folder: &Path) -> Result<()> {
    let kept = folder.join("with-sqs");
    std::fs::create_dir_all(&kept)?;
    for function in ["api", "poller", "sqs-worker"] {
        // Not over a copy that may be running.
        let _ = std::fs::remove_file(kept.join(function));
        std::fs::copy(folder.join(function), kept.join(function))?;
    }
    Ok(())
}

/// Builds every program but the functions, all at once: with the features that the tests ask of what they are built of, so that
/// it is built once for both.
fn programs() -> Result<()> {
    run(cargo(&["build", "--workspace", "--exclude", "api", "--exclude", "worker", "--bins"]))
}

/// The roles that Supabase has and grants refer to.
async fn stub_roles(url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    for role in ["anon", "authenticated", "service_role", "authenticator"] {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        );
        client.batch_execute(&sql).await?;
    }
    Ok(())
}

fn check() -> Result<()> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut clippy = cargo(&["clippy", "-p", "shared", "-p", "api", "-p", "worker", "--all-targets"]);
    clippy.args([
        "--features",
        stack::WITH_SQS,
        "--features",
        "api/concurrency-tokio,worker/concurrency-tokio",
    ]);
    clippy.args(["--", "-D", "warnings"]);
    run(clippy)?;
    let mut sam = Command::new(step("sam", tools::sam)?);
    sam.args(["validate", "--lint", "-t", "template.yaml"]);
    run(offline(sam))?;
    let mut cfn_lint = Command::new(step("cfn-lint", tools::cfn_lint)?);
    cfn_lint.arg("template.yaml");
    run(offline(cfn_lint))
}

/// No telemetry, no credentials.
fn offline(mut command: Command) -> Command {
    command.env("SAM_CLI_TELEMETRY", "0").env("AWS_DEFAULT_REGION", "us-east-1");
    for secret in ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(secret);
    }
    command
}

fn openapi() -> Result<()> {
    let mut generator =
        cargo(&["run", "--quiet", "-p", "api", "--features", "openapi", "--example", "openapi"]);
    let output = generator.current_dir(tools::workspace()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("failed ({}): {generator:?}", output.status).into());
    }
    let path = tools::workspace().join("functions/api/openapi.json");
    std::fs::write(&path, &output.stdout)?;
    println!("{}: {} bytes", path.display(), output.stdout.len());
    Ok(())
}

fn lint_api() -> Result<()> {
    let folder = tools::workspace().join("infra/openapi");
    let npm = |args: &[&str]| {
        let mut command = Command::new("npm");
        command.arg("--prefix").arg(&folder).args(args);
        run(command)
    };
    if !folder.join("node_modules").is_dir() {
        npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    }
    npm(&["run", "--silent", "redocly"])?;
    npm(&["run", "--silent", "spectral"])
}

fn build(sqs: bool) -> Result<()> {
    let mut lambda = Command::new(step("cargo-lambda", tools::cargo_lambda)?);
    lambda.args(["lambda", "build", "--release", "--compiler", "cargo"]);
    if sqs {
        lambda.args(["--features", stack::WITH_SQS]);
    }
    run(lambda)?;
    for entry in std::fs::read_dir(tools::target_dir().join("lambda"))?.flatten() {
        if let Ok(bootstrap) = entry.path().join("bootstrap").metadata() {
            println!("{:>10} bytes  {}", bootstrap.len(), entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}

/// The functions as they are deployed are built first: cold, that takes some minutes. `--quick` takes debug builds: it shows that
/// the benchmark runs.
fn bench(options: &[String]) -> Result<()> {
    let build = if options.iter().any(|it| it == "--quick") { Build::Debug } else { Build::Release };
    programs()?;
    let folder = functions(build)?;
    let mut measured = cargo(&["build", "-p", "api", "-p", "worker", "-p", "bench-functions", "--bins"]);
    if let Build::Release = build {
        measured.arg("--release");
    }
    run(measured)?;
    let mut bench = Command::new(tools::target_dir().join("debug/bench"));
    bench.arg("--functions").arg(folder).args(options);
    run(bench)
}

async fn db() -> Result<()> {
    let database = stack::Database::create("punchcard").await?;
    let url = database.url();
    println!("DATABASE_URL={url}\npsql '{url}'\nCtrl-C stops it and removes its data.");
    interruption().await;
    database.remove().await
}

/// Shows what is being waited for: a spinner on a terminal, a plain line elsewhere.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let spinner = progress(name);
    let result = work();
    spinner.finish_and_clear();
    result
}

fn progress(name: &str) -> indicatif::ProgressBar {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(name.to_owned());
    if spinner.is_hidden() {
        eprintln!("{name} ...");
    }
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}
