//! `cargo xtask dev`: the system to play with. PostgreSQL, the functions under `cargo lambda watch`, the kinds of
//! `infra/kinds.toml`, an account with credits, and a tick a minute, until Ctrl-C. With `--sqs`, jobs start at once.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use local::Result;
use local::lambda::Function;
use local::pump::Pump;
use local::sqs::{Emulator, Queue, environment};
use local::tools;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::stack::{self, Database, Functions};
use crate::{interruption, programs, run, step};

const TICK_EVERY: Duration = Duration::from_secs(60);
const CREDITS: &str = "100";
const DAY: Duration = Duration::from_secs(86_400);

/// As the template has them: six times the function's time-out, and five deliveries.
const VISIBILITY: Duration = Duration::from_secs(720);
const MAX_RECEIVE_COUNT: u32 = 5;
/// SQS workers at once.
const WORKERS: usize = 5;

pub(crate) async fn dev(sqs: bool) -> Result<()> {
    programs()?;
    let cargo_lambda = stack::build(sqs.then_some(stack::WITH_SQS))?;
    let emulator = sqs.then(|| step("SQS", Emulator::start)).transpose()?;
    let database = Database::create("dev").await?;
    let result = tokio::select! {
        result = serve(&cargo_lambda, &database, emulator.as_ref()) => result,
        () = interruption() => Ok(()),
    };
    database.remove().await?;
    result
}

async fn serve(
    cargo_lambda: &std::path::Path,
    database: &Database,
    emulator: Option<&Emulator>,
) -> Result<()> {
    let url = database.url();
    let account = Uuid::new_v4();
    punchcard(&url, &["apply", "--allow-private-targets"])?;
    punchcard(&url, &["credits", "grant", &account.to_string(), CREDITS, "--key", "dev"])?;
    // One queue for both functions is enough here: calls for help may share a worker.
    let queue = match emulator {
        Some(emulator) => {
            Some(Queue::create(emulator.endpoint(), "wake", VISIBILITY, MAX_RECEIVE_COUNT).await?)
        }
        None => None,
    };
    let sqs = emulator.zip(queue.as_ref()).map(|(emulator, queue)| {
        let mut env = environment(emulator.endpoint());
        env.push(("WAKE_QUEUE_URL".into(), queue.url.clone()));
        env
    });
    let log = tools::target_dir().join("dev-watch.log");
    let functions = Functions::start(cargo_lambda, &url, sqs, &log)?;
    // `cargo lambda watch` has no event source: messages are delivered by one of ours, to the same binary.
    let _pump = queue.map(|queue| {
        let worker = Function::new(tools::target_dir().join("debug/sqs-worker"), functions.environment());
        Pump::start(&queue, &Arc::new(worker), WORKERS, 10)
    });
    introduce(&functions, &url, account)?;
    let mut minute = interval(TICK_EVERY);
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minute.tick().await;
        println!("tick: {}", functions.tick().await?);
    }
}

/// Runs the operator's command, as an operator would.
pub(crate) fn punchcard(database_url: &str, args: &[&str]) -> Result<()> {
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
