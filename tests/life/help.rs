//! What several of these tests do and look at.

use serde_json::{Value, json};

use crate::support::{Answer, Bench, event};

/// All that was bought, is to be done, came of it and was paid, as a hash: what is refused leaves it as it was.
pub async fn books(bench: &Bench) -> String {
    let tables = ["jobs", "queue", "outcomes", "attempts", "labels", "ledger", "accounts"];
    let parts = tables.map(|table| {
        format!("(SELECT coalesce(string_agg(t::text, ',' ORDER BY t::text), '') FROM punchcard.{table} t)")
    });
    bench.rows(&format!("SELECT md5(concat_ws('|', {}))", parts.join(", "))).await[0].get(0)
}

/// Every due job runs, or what is left of it.
pub async fn tick(bench: &Bench) -> Value {
    bench.scripted_worker().invoke(&json!({})).await.expect("a tick")
}

/// POST as a service with this token.
pub async fn serve(bench: &Bench, token: &str, path: &str, body: Option<Value>) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    bench.request(event("POST", path, &headers, body.map(|body| body.to_string()).as_deref())).await
}

pub fn code(answer: &Answer) -> (u64, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}
