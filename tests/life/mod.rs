//! The life of a job, a file for each thing that can be done to it: through the API and a real tick, its money asserted.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Bench};

mod attempts;
mod cancel;
mod caps;
mod help;
mod input_error;
mod labels;
mod lane;
mod metered;
mod model;
mod progress;
mod property;
mod races;
mod redrive;
mod refund;
mod retry_by_hand;
mod retry_policy;
mod sequences;
mod time_limit;
mod transaction;

/// What a job shows of its price: what is held, was captured and was released.
fn credits(held: i64, captured: i64, released: i64) -> Value {
    let price = held + captured + released;
    json!({ "price": price, "held": held, "captured": captured, "released": released, "refunded": 0 })
}

/// Waits until a worker has the job.
async fn until_running(bench: &Bench, account: Uuid, id: &str) {
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
fn assert_refused(answer: &Answer, status: u64, code: &str) {
    assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let detail = answer.body["detail"].as_str().expect("a detail");
    assert!(!detail.is_empty() && !detail.contains("punchcard.") && !detail.contains("SQL"), "{detail}");
}
