//! One message as it is sent: a webhook's, signed as Standard Webhooks has it, or a cancel to an HTTP target.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    db::{
        jobs::{Job, JobCredits},
        webhooks::{Delivery, Event},
    },
    domain::{Status, Timestamp},
    signing::{account_secret, signed_post},
};
use uuid::Uuid;

use crate::jobs::http_target::{HttpTarget, Post};

/// The largest output that is sent along: the specification asks for small messages.
const MOST_OUTPUT_BYTES: usize = 10_000;
/// A message that was to be sent this often has taken its workers down, or was never recorded: it is not sent any more.
const MOST_SENDINGS: i16 = 100;
/// Nor is one that was taken this often: it cannot be counted much further.
const MOST_TAKEN: i16 = 30_000;

/// The request that a message is.
///
/// # Errors
/// Why it can never be sent.
pub(crate) fn request(delivery: &Delivery, master: &str, private: bool) -> Result<Request<Bytes>, String> {
    let url = delivery.url.as_deref().ok_or("the webhook is gone or disabled")?;
    if delivery.sending() > MOST_SENDINGS || delivery.attempt > MOST_TAKEN {
        return Err("what became of it was never recorded".into());
    }
    let job = &delivery.job;
    let event = match &delivery.event {
        Event::Job(event) => event,
        Event::Cancel => {
            let post = Post {
                id: job.id,
                kind: &job.kind,
                account_id: job.account_id,
                attempt: job.attempt.unsigned_abs().into(),
                max_attempts: job.max_attempts.unsigned_abs().into(),
                credits: job.credits.price,
                input: job.input.as_ref().map_or("{}", |input| input.get()),
                callback_url: None,
            };
            let target = HttpTarget::new(Some(master.to_owned()), private);
            let request = target.cancel_request(&post, url, delivery.kind_secret_version);
            return request.map_err(|error| error.message);
        }
    };
    let message = Message { r#type: event, timestamp: delivery.created_at, data: Data::of(job) };
    let body = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
    let secret = |version: &u32| account_secret(master, job.account_id, *version);
    let secrets: Vec<String> = delivery.secret_versions.iter().map(secret).collect();
    signed_post(&delivery.id.to_string(), url, &secrets, body)
}

/// A message, as Standard Webhooks has it.
#[derive(Serialize)]
struct Message<'a> {
    r#type: &'a str,
    /// When what it says happened.
    timestamp: Timestamp,
    data: Data<'a>,
}

/// The job as it is when the message is sent: a final one is always the same.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    kind: &'a str,
    account_id: Uuid,
    status: Status,
    attempt: i16,
    output: Option<&'a RawValue>,
    /// Whether there is an output that is too large for a message: `GET /api/jobs/{id}` has it.
    output_omitted: bool,
    error: Option<&'a RawValue>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    metadata: &'a BTreeMap<String, String>,
    tags: &'a [String],
    credits: &'a JobCredits,
}

impl<'a> Data<'a> {
    fn of(job: &'a Job) -> Self {
        let output = job.output.as_ref().and_then(Option::as_deref);
        let fits = output.filter(|output| output.get().len() <= MOST_OUTPUT_BYTES);
        Self {
            id: job.id,
            kind: &job.kind,
            account_id: job.account_id,
            status: job.status,
            attempt: job.attempt,
            output: fits,
            output_omitted: fits.is_none() && output.is_some(),
            error: job.error.as_deref(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            metadata: &job.metadata,
            tags: &job.tags,
            credits: &job.credits,
        }
    }
}
