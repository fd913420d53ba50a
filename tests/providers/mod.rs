//! Providers outside, as docs/PROVIDERS.md shows them, against servers that speak the shape that these document; and a GPU worker
//! behind an HTTP target.

mod gpu_worker;
mod prediction;
mod queue;

use std::time::Duration;

use local::{lambda::Function, scripted::ScriptedServer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bench, binary, environment};

/// The poller with the kinds of `tests/bin/provider-worker`.
fn worker(bench: &Bench, provider: &ScriptedServer, key: &str) -> Function {
    let mut env = environment(&bench.url);
    env.push(("PROVIDER_URL".to_owned(), provider.url("")));
    env.push(("PROVIDER_KEY".to_owned(), key.to_owned()));
    Function::new(binary("provider-worker"), env).timeout(Duration::from_secs(60))
}

/// An account with credits for one job of this kind of price 10, and the job.
async fn bought(bench: &Bench, kind: &str, input: Value) -> (Uuid, String) {
    bench
        .sql(&format!(
            "INSERT INTO punchcard.kinds (name, price, max_attempts, backoff_seconds) VALUES ('{kind}', 10, 2, 1)
             ON CONFLICT DO NOTHING"
        ))
        .await;
    let account = bench.account(10).await;
    let answer = bench.post(account, json!({ "kind": kind, "input": input }), None).await;
    (account, answer.body["id"].as_str().expect("an id").to_owned())
}
