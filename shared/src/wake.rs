//! Wake-ups: hints over SQS that a job was queued, or that more is due than one worker can run. PostgreSQL has the
//! truth: a wake-up that is lost, late or doubled costs time, never a job (ADR 0009). The only file that knows the
//! feature `sqs`; without it nothing can be sent, and a queue's URL is refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Deadline;

/// Whether this build can send wake-ups: the Cargo feature `sqs`.
pub const BUILT_IN: bool = cfg!(feature = "sqs");
/// The longest delay of a message (SQS, `DelaySeconds`); what is due later is found by a tick.
pub const LONGEST_DELAY: Duration = Duration::from_secs(900);
/// How long sending may take: a caller is waiting, and the next tick finds the job anyway.
#[cfg(feature = "sqs")]
const SEND_BUDGET: Duration = Duration::from_secs(2);

/// What a message says; its body is this as JSON: `{"job_id":"…"}` or `{"drain":{}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WakeUp {
    /// This job was queued.
    JobId(Uuid),
    /// More is due than one worker can run, or there are messages to send.
    Drain {},
}

/// A wake-up to send.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it says.
    pub wake_up: WakeUp,
    /// Not delivered before; at most [`LONGEST_DELAY`].
    pub after: Duration,
    /// Whose it is: SQS delivers the messages of quiet groups before those of a busy one (fair queues).
    pub group: String,
}

impl Message {
    /// For whoever has time to look at what is due, of this group.
    #[must_use]
    pub fn drain(group: Uuid) -> Self {
        Self { wake_up: WakeUp::Drain {}, after: Duration::ZERO, group: group.to_string() }
    }

    /// For a job that is due `after` that long; none if that is longer than a message may wait.
    #[must_use]
    pub fn for_job(job_id: Uuid, account_id: Uuid, after: Duration) -> Option<Self> {
        let message = Self { wake_up: WakeUp::JobId(job_id), after, group: account_id.to_string() };
        (after <= LONGEST_DELAY).then_some(message)
    }
}

/// Sends wake-ups, if this deployment has a queue for them.
#[derive(Debug, Default)]
pub struct Wake {
    #[cfg(feature = "sqs")]
    queue: Option<sqs::Queue>,
}

impl Wake {
    /// To the queue at `url`, if there is one; connects when first needed.
    #[must_use]
    #[cfg_attr(not(feature = "sqs"), allow(unused_variables))] // refused by the configuration
    pub fn new(url: Option<String>) -> Self {
        Self {
            #[cfg(feature = "sqs")]
            queue: url.map(sqs::Queue::new),
        }
    }

    /// Whether there is a queue to send to.
    #[must_use]
    pub fn is_on(&self) -> bool {
        #[cfg(feature = "sqs")]
        return self.queue.is_some();
        #[cfg(not(feature = "sqs"))]
        false
    }

    /// Sends the messages, ten to a request, within two seconds, and answers how many the queue took. Nothing here is
    /// an error for the caller: what is not sent is logged, with its count, and left to the next tick.
    #[cfg_attr(not(feature = "sqs"), allow(unused_variables, clippy::unused_async))]
    pub async fn send(&self, messages: &[Message], deadline: Deadline) -> usize {
        #[cfg(feature = "sqs")]
        if let (Some(queue), false) = (&self.queue, messages.is_empty()) {
            let begin = std::time::Instant::now();
            let sent = queue.send(messages, deadline.within(SEND_BUDGET)).await;
            tracing::debug!(wake_ups = sent, millis = begin.elapsed().as_secs_f64() * 1e3, "wake-ups sent");
            if sent < messages.len() {
                // The template's alarm WakeUpsNotSent sums `wake_ups`.
                tracing::warn!(wake_ups = messages.len() - sent, "wake-ups not sent");
            }
            return sent;
        }
        0
    }
}

#[cfg(feature = "sqs")]
mod sqs {
    //! The SDK, in its smallest form: no default features, `ring` as in all else here.

    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
    use aws_sdk_sqs::{Client, error::DisplayErrorContext, types::SendMessageBatchRequestEntry};
    use aws_smithy_http_client::{
        Builder,
        tls::{Provider, rustls_provider::CryptoMode},
    };
    use futures_util::{StreamExt, stream};
    use tokio::{sync::OnceCell, time::timeout_at};

    use super::Message;
    use crate::domain::Deadline;

    /// Messages of one request (SQS, `SendMessageBatch`).
    const BATCH: usize = 10;
    /// Requests under way at once.
    const AT_ONCE: usize = 8;
    /// One try of a request; there are two.
    const ATTEMPT_BUDGET: Duration = Duration::from_millis(900);

    #[derive(Debug)]
    pub(super) struct Queue {
        url: String,
        client: OnceCell<Client>,
    }

    impl Queue {
        pub(super) fn new(url: String) -> Self {
            Self { url, client: OnceCell::new() }
        }

        /// How many of the messages were taken by the deadline.
        pub(super) async fn send(&self, messages: &[Message], deadline: Deadline) -> usize {
            let taken = AtomicUsize::new(0);
            let all = async {
                let client = self.client.get_or_init(connect).await;
                stream::iter(messages.chunks(BATCH))
                    .for_each_concurrent(AT_ONCE, |batch| async {
                        taken.fetch_add(self.send_batch(client, batch).await, Ordering::Relaxed);
                    })
                    .await;
            };
            if timeout_at(deadline.instant(), all).await.is_err() {
                tracing::warn!("sending wake-ups took too long");
            }
            taken.into_inner()
        }

        async fn send_batch(&self, client: &Client, batch: &[Message]) -> usize {
            let entries = batch.iter().enumerate().map(|(number, message)| {
                SendMessageBatchRequestEntry::builder()
                    .id(number.to_string())
                    .message_body(serde_json::to_string(&message.wake_up).unwrap_or_default())
                    .message_group_id(&message.group)
                    .delay_seconds(whole_seconds(message.after))
                    .build()
            });
            let entries = entries.collect::<Result<Vec<_>, _>>();
            let request = client.send_message_batch().queue_url(&self.url).set_entries(entries.ok());
            match request.send().await {
                Ok(answer) => {
                    for refused in answer.failed() {
                        tracing::warn!(code = refused.code(), "a wake-up was refused");
                    }
                    answer.successful().len()
                }
                Err(error) => {
                    tracing::warn!(error = %DisplayErrorContext(error), "the queue cannot be reached");
                    0
                }
            }
        }
    }

    /// Rounded up: a message must not come before its job is due.
    fn whole_seconds(delay: Duration) -> i32 {
        i32::try_from(delay.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX)
    }

    async fn connect() -> Client {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_BUDGET).build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .load()
            .await;
        Client::new(&config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_wake_up_and_nothing_else() {
        let id = Uuid::from_u128(7);
        let job = format!(r#"{{"job_id":"{id}"}}"#);
        assert_eq!(serde_json::to_string(&WakeUp::JobId(id)).unwrap(), job);
        assert_eq!(serde_json::to_string(&WakeUp::Drain {}).unwrap(), r#"{"drain":{}}"#);
        assert_eq!(serde_json::from_str::<WakeUp>(&job).unwrap(), WakeUp::JobId(id));
        for bad in ["", "{}", "[]", "null", r#"{"job_id":7}"#, r#"{"job_id":"7"}"#, r#"{"drain":{"n":1}}"#] {
            assert!(serde_json::from_str::<WakeUp>(bad).is_err(), "{bad}");
        }
        let two = format!(r#"{{"job_id":"{id}","drain":{{}}}}"#);
        assert!(serde_json::from_str::<WakeUp>(&two).is_err());
    }
}
