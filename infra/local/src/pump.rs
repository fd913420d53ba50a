//! Lambda's event source mapping of an SQS queue, on this machine: receives, invokes the function, deletes what it has
//! done. What it has not is delivered again after the visibility time-out, and in the end goes to the dead letters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::lambda::Function;
use crate::scripted::lock;
use crate::sqs::{Queue, REGION};

/// How long a receiver rests when the queue does not answer.
const REST: Duration = Duration::from_millis(200);

/// A mapping at work; on drop it receives no more, and finishes what it has received.
#[derive(Debug)]
pub struct Pump {
    stopped: Arc<AtomicBool>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

/// A message given to the function.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its body.
    pub body: String,
    /// When it was received.
    pub at: SystemTime,
}

impl Pump {
    /// Starts `concurrency` receivers (`MaximumConcurrency`), each with one batch of up to `batch` messages (1 to 10) at a
    /// time.
    pub fn start(queue: &Queue, function: &Arc<Function>, concurrency: usize, batch: i32) -> Self {
        let (stopped, deliveries) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Delivery>>>::default());
        for _ in 0..concurrency {
            let (stopped, deliveries) = (Arc::clone(&stopped), Arc::clone(&deliveries));
            tokio::spawn(receive(queue.clone(), batch, Arc::clone(function), stopped, deliveries));
        }
        Self { stopped, deliveries }
    }

    /// Every delivery so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.deliveries).clone()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

async fn receive(
    queue: Queue,
    batch: i32,
    function: Arc<Function>,
    stopped: Arc<AtomicBool>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
) {
    while !stopped.load(Ordering::Relaxed) {
        let Ok(messages) = queue.receive(batch).await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        if messages.is_empty() {
            continue;
        }
        let (mut records, mut receipts) = (Vec::new(), Vec::new());
        for message in messages {
            let id = message.message_id.unwrap_or_default();
            let receipt = message.receipt_handle.unwrap_or_default();
            let attributes = message.attributes.unwrap_or_default();
            let attributes =
                attributes.into_iter().map(|(name, value)| (name.as_str().to_owned(), value.into()));
            let body = message.body.unwrap_or_default();
            records.push(json!({
                "messageId": id, "receiptHandle": receipt, "body": body, "md5OfBody": message.md5_of_body,
                "attributes": attributes.collect::<serde_json::Map<_, Value>>(), "messageAttributes": {},
                "eventSource": "aws:sqs", "awsRegion": REGION,
                "eventSourceARN": format!("arn:aws:sqs:{REGION}:123456789012:wake"),
            }));
            receipts.push((id, receipt));
            lock(&deliveries).push(Delivery { body, at: SystemTime::now() });
        }
        let answer = function.invoke(&json!({ "Records": records })).await;
        let Some(failed) = answer.ok().and_then(|answer| failed(&answer)) else { continue };
        // A failure that names no message of the batch fails all of it.
        if failed.iter().all(|id| receipts.iter().any(|(known, _)| known == id)) {
            let done = receipts.into_iter().filter(|(id, _)| !failed.contains(id));
            let _ = queue.delete(done.map(|(_, receipt)| receipt).collect()).await;
        }
    }
}

/// The messages that the function gives back; `None` if it gives back all, as with an answer that Lambda cannot read.
fn failed(answer: &Value) -> Option<Vec<String>> {
    match answer.get("batchItemFailures") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(failures)) => failures
            .iter()
            .map(|failure| failure["itemIdentifier"].as_str().filter(|id| !id.is_empty()).map(str::to_owned))
            .collect(),
        Some(_) => None,
    }
}
