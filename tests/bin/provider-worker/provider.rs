//! One call to a provider, and what its status means for the job.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use shared::{
    domain::{Deadline, ErrorCode, JobError, Outcome},
    http_client::{self, Allow},
};

/// The largest answer that is read, in bytes.
const MOST_BYTES: usize = 262_144;

/// Where a provider is, and the key to it.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) allow: Allow,
}

impl Provider {
    /// The JSON that the provider answers.
    ///
    /// # Errors
    /// What a refusal, or no answer, means for the job.
    pub(crate) async fn call(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        budget: Duration,
    ) -> Result<Value, Outcome> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, &self.key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map(Value::to_string).unwrap_or_default().into())
            .map_err(|error| Outcome::Final(JobError::new(ErrorCode::HandlerError, error.to_string())))?;
        let answer = http_client::send(request, self.allow, MOST_BYTES, Deadline::after(budget)).await;
        let answer = answer.map_err(|error| again(error.to_string()))?;
        let status = answer.status();
        let said = format!("the provider answered {}", status.as_u16());
        match status {
            _ if status.is_success() => serde_json::from_slice(answer.body()).map_err(|_| again(said)),
            // Busy is nobody's fault: later, and no attempt is spent.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let after = answer.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok());
                let retry_after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
                Err(Outcome::Unavailable { error: JobError::new(ErrorCode::Unavailable, said), retry_after })
            }
            // The input is to blame: `on_input_error` says what that costs.
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Outcome::Final(JobError::new(ErrorCode::InvalidInput, said)))
            }
            _ if status.is_server_error() => Err(again(said)),
            // The key, say: the operator's to mend.
            _ => Err(Outcome::Final(JobError::new(ErrorCode::HandlerError, said))),
        }
    }
}

fn again(why: String) -> Outcome {
    Outcome::Err { error: JobError::new(ErrorCode::HandlerError, why), retry_after: None }
}

/// A text within an answer.
///
/// # Errors
/// The provider answered something else than it documents.
pub(crate) fn text<'a>(answer: &'a Value, member: &str) -> Result<&'a str, Outcome> {
    answer[member].as_str().ok_or_else(|| again(format!("the provider's answer has no {member}")))
}
