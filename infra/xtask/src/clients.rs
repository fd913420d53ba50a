//! `cargo xtask clients`: clients that are generated from the API's description, in Python and TypeScript, take a tour of the
//! real API. Needs Node.js, npm and Python.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use local::Result;
use local::gateway::Gateway;
use local::lambda::Function;
use local::tools;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::stack::{Database, Keys};
use crate::{cargo, dev, interruption, programs, run, step};

const TYPE_SCRIPT: &str = "docs/examples/typescript";
/// The most files that a client of Python's may have: more are no help to anybody.
const MOST_FILES: usize = 120;
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

pub(crate) async fn clients() -> Result<()> {
    run(cargo(&["build", "-p", "api", "--bins"]))?;
    programs()?;
    type_script()?;
    let generator = step("openapi-python-client", tools::openapi_python_client)?;
    let client = python_client(&generator)?;
    let database = Database::create("clients").await?;
    let done = tokio::select! {
        done = tour(&generator, &client, &database) => done,
        () = interruption() => Err("interrupted".into()),
    };
    database.remove().await?;
    done
}

fn type_script() -> Result<()> {
    let folder = tools::workspace().join(TYPE_SCRIPT);
    let npm = |args: &[&str]| {
        let mut command = Command::new("npm");
        command.arg("--prefix").arg(&folder).args(args);
        run(command)
    };
    if !folder.join("node_modules").is_dir() {
        npm(&["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    }
    npm(&["run", "--silent", "check"])
}

/// Generates the client of Python's next to the tour.
fn python_client(generator: &Path) -> Result<std::path::PathBuf> {
    let (examples, folder) =
        (tools::workspace().join("docs/examples/python"), tools::target_dir().join("clients/python"));
    let client = folder.join("punchcard_client");
    std::fs::create_dir_all(&folder)?;
    let mut generate = Command::new(generator);
    generate.args(["generate", "--meta", "none", "--overwrite"]);
    generate.arg("--path").arg(tools::workspace().join("functions/api/openapi.json"));
    generate.arg("--config").arg(examples.join("config.yml")).arg("--output-path").arg(&client);
    run(generate)?;
    std::fs::copy(examples.join("tour.py"), folder.join("tour.py"))?;
    let files = files(&client)?;
    println!("the client of Python has {files} files");
    match files <= MOST_FILES {
        true => Ok(folder),
        false => Err(format!("the client of Python has {files} files, more than {MOST_FILES}").into()),
    }
}

fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        count += match path.is_dir() {
            true => files(&path)?,
            false => usize::from(path.extension().is_some_and(|extension| extension == "py")),
        };
    }
    Ok(count)
}

async fn tour(generator: &Path, folder: &Path, database: &Database) -> Result<()> {
    dev::punchcard(&database.url(), &["apply", "--allow-private-targets"])?;
    let keys = Keys::new();
    let api = tools::target_dir().join("debug/api");
    let api = Arc::new(Function::new(api, keys.environment(&database.url())).max_concurrency(2));
    let gateway = Gateway::start(api, |_| ()).await?;
    let account = Uuid::new_v4();
    let token = format!("{}{}", shared::db::tokens::TOKEN_PREFIX, Uuid::new_v4().simple());
    let hash = shared::db::tokens::token_hash(&token);
    let insert = "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256)
                  VALUES ('clients', 1, '{enqueue,grant,operate}', $1)";
    database.connect().await?.execute_typed(insert, &[(&hash, Type::BYTEA)]).await?;
    let jwt = keys.token(account, TOKEN_LIFE)?;
    let mut python = tokio::process::Command::new(generator.with_file_name("python"));
    python.arg("tour.py").current_dir(folder);
    let mut npm = tokio::process::Command::new("npm");
    npm.arg("--prefix").arg(tools::workspace().join(TYPE_SCRIPT)).args(["run", "--silent", "tour"]);
    for (name, mut tour) in [("Python", python), ("TypeScript", npm)] {
        println!("\na tour in {name}");
        tour.env("API", gateway.url()).env("ACCOUNT", account.to_string());
        tour.env("JWT", &jwt).env("SERVICE_TOKEN", &token).kill_on_drop(true);
        if !tour.status().await?.success() {
            return Err(format!("the tour in {name} found something").into());
        }
    }
    Ok(())
}
