//! `punchcard doctor`, end to end.

mod faults;
mod inside;
mod said;

use std::process::Output;

use serde_json::Value;

use crate::support::binary;

struct Said {
    exit: i32,
    code: String,
    fix: String,
    all: Value,
}

/// What the doctor says of a connection string, as JSON.
async fn ask(url: &str, env: &[(&str, &str)]) -> Said {
    ask_more(url, &[], env).await
}

async fn ask_more(url: &str, more: &[&str], env: &[(&str, &str)]) -> Said {
    let mut command = tokio::process::Command::new(binary("punchcard"));
    command
        .args(["--database-url", url, "doctor", "--json"])
        .args(more)
        .env_remove("PGPASSWORD")
        .env_remove("PG_CA_PEM");
    let output: Output = command.envs(env.iter().copied()).output().await.expect("the doctor runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let last = all["steps"].as_array().and_then(|steps| steps.last()).cloned().unwrap_or_default();
    let word = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    Said { exit: output.status.code().unwrap_or(-1), code: word("code"), fix: word("fix"), all }
}
