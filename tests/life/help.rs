//! What several of these tests do and look at.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Bench, event};

/// All that was bought, is to be done, came of it and was paid, as a hash: what is refused leaves it as it was.
pub async fn books(bench: &Bench) -> String {
    let tables = ["jobs", "queue", "outcomes", "attempts", "labels", "ledger", "accounts", "retries"];
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

/// What a job shows of its price: what is held, was captured and was released.
pub fn credits(held: i64, captured: i64, released: i64) -> Value {
    let price = held + captured + released;
    json!({ "price": price, "held": held, "captured": captured, "released": released, "refunded": 0 })
}

/// Waits until a worker has the job.
pub async fn until_running(bench: &Bench, account: Uuid, id: &str) {
    for _ in 0..600 {
        match bench.job(account, id).await["status"].as_str() {
            Some("running") => return,
            Some("queued") => tokio::time::sleep(Duration::from_millis(50)).await,
            other => panic!("{other:?} before it was seen running"),
        }
    }
    panic!("not running after half a minute");
}

/// A problem with this status and code, in words of ours.
pub fn assert_refused(answer: &Answer, status: u64, code: &str) {
    assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let detail = answer.body["detail"].as_str().expect("a detail");
    assert!(!detail.is_empty() && !detail.contains("punchcard.") && !detail.contains("SQL"), "{detail}");
}
