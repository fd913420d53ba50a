//! `cargo xtask dev`: the system to play with. PostgreSQL, the functions under `cargo lambda watch`, the kinds of
//! `infra/kinds.toml`, an account with credits, and a tick a minute, until Ctrl-C.

use std::process::Command;
use std::time::Duration;

use local::Result;
use local::tools;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::run;
use crate::stack::{self, Database, Functions};

const TICK_EVERY: Duration = Duration::from_secs(60);
const CREDITS: &str = "100";
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) async fn dev() -> Result<()> {
    let cargo_lambda = stack::build()?;
    let database = Database::create("dev").await?;
    let result = tokio::select! {
        result = serve(&cargo_lambda, &database) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    database.remove().await?;
    result
}

async fn serve(cargo_lambda: &std::path::Path, database: &Database) -> Result<()> {
    let url = database.url();
    let account = Uuid::new_v4();
    punchcard(&url, &["apply", "--allow-private-targets"])?;
    punchcard(&url, &["credits", "grant", &account.to_string(), CREDITS, "--key", "dev"])?;
    let functions = Functions::start(cargo_lambda, &url, &tools::target_dir().join("dev-watch.log"))?;
    introduce(&functions, &url, account)?;
    let mut minute = interval(TICK_EVERY);
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minute.tick().await;
        println!("tick: {}", functions.tick().await?);
    }
}

/// Runs the operator's command, as an operator would.
fn punchcard(database_url: &str, args: &[&str]) -> Result<()> {
    let mut command = Command::new(tools::target_dir().join("debug/punchcard"));
    command.args(args).env("DATABASE_URL", database_url);
    run(command)
}

fn introduce(functions: &Functions, database_url: &str, account: Uuid) -> Result<()> {
    println!(
        "
export API={api}
export JWT={jwt}
export DATABASE_URL='{database_url}'
export SIGNING_SECRET={signing}

curl $API/api/jobs -H \"Authorization: Bearer $JWT\" -H 'Content-Type: application/json' \\
     -H 'Idempotency-Key: order-1' -d '{{\"kind\":\"qr.svg\",\"input\":{{\"text\":\"hello\"}}}}'
curl $API/api/jobs    -H \"Authorization: Bearer $JWT\"
curl $API/api/credits -H \"Authorization: Bearer $JWT\"
curl {tick} -d '{{}}'      # a tick now; else one comes each minute
cargo run -q -p cli -- apply --allow-private-targets      # after a change of infra/kinds.toml

Account {account} has {CREDITS} credits. A changed function is built and started when you restart this.
Ctrl-C stops everything and removes the data.
",
        api = functions.url(),
        jwt = functions.token(account, DAY)?,
        signing = functions.signing_secret(),
        tick = functions.invoke_url("poller"),
    );
    Ok(())
}
