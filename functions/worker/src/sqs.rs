//! One batch of wake-ups. A wake-up is a hint: whatever it asks for, and whether or not it can be had, the message is
//! done, and the next tick is the retry. Only one that cannot be read is given back, and goes to the dead-letter queue.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{domain::Deadline, wake::WakeUp};
use uuid::Uuid;

use crate::{Summary, Worker, deliver, drain::Trigger};

/// The event is no batch of SQS: the invocation fails, and Lambda delivers all of it again.
#[derive(Debug, thiserror::Error)]
#[error("this is no batch of SQS messages: {0}")]
pub struct NotABatch(serde_json::Error);

/// What SQS's event source mapping sends, as far as it matters.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
}

/// Which messages are to be delivered again (`ReportBatchItemFailures`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

pub(crate) async fn run(worker: &Worker, event: Value, deadline: Deadline) -> Result<Answer, NotABatch> {
    let batch: Batch = serde_json::from_value(event).map_err(NotABatch)?;
    let (mut jobs, mut drains, mut failures) = (Vec::<Uuid>::new(), 0, Vec::new());
    for Record { message_id, body } in batch.records {
        match serde_json::from_str(&body) {
            Ok(WakeUp::JobId(id)) if jobs.contains(&id) => {}
            Ok(WakeUp::JobId(id)) => jobs.push(id),
            Ok(WakeUp::Drain {}) => drains += 1,
            Err(error) => {
                tracing::warn!(message_id, error = %error, "wake-up cannot be read, given back");
                failures.push(Failure { item_identifier: message_id });
            }
        }
    }
    if drains > 0 || !jobs.is_empty() {
        let mut summary = Summary::default();
        let drained = deliver::while_draining(
            worker,
            Trigger::Wake(&jobs),
            drains > 0,
            deadline,
            &mut summary,
            async |_| {},
        );
        match drained.await {
            Ok(()) => tracing::info!(jobs = jobs.len(), drains, ?summary, "wake-ups done"),
            // The alarm WakeUpsFailed counts this line.
            Err(error) => {
                tracing::error!(error = %error, jobs = jobs.len(), drains, "wake-ups left to the next tick")
            }
        }
    }
    Ok(Answer { batch_item_failures: failures })
}
