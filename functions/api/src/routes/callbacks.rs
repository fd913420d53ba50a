//! Call backs: how a job that somebody outside is at work on goes on and ends. Who may is in the URL.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    db::callbacks::CallBack,
    domain::{Deadline, ErrorCode, JobError, Status, job::check_output},
    signing::open_callback_token,
};

use super::ok;
use crate::{
    App,
    error::ApiError,
    event::{Request, Response},
    json::callback_body,
};

/// The longest message of a progress, in characters: as a handler's.
const MAX_MESSAGE_CHARS: usize = 200;

/// What is said. Other members are ignored, so that a provider's own webhook may come here as it is.
#[derive(Deserialize)]
struct CalledBack {
    status: String,
    output: Option<Box<RawValue>>,
    error: Option<CallBackError>,
    progress: Option<CallBackProgress>,
    credits_used: Option<i64>,
}

/// What went wrong: a text or, as a program would say it, an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum CallBackError {
    Text(String),
    Object { code: Option<String>, message: Option<String>, retryable: Option<bool> },
}

#[derive(Deserialize)]
struct CallBackProgress {
    percent: Option<i64>,
    message: Option<String>,
}

/// How the job stands now.
#[derive(Serialize)]
struct Heard {
    status: Status,
    /// What is still done for it is done in vain.
    cancel_requested: bool,
}

/// `POST /api/callbacks/{token}`: progress, or the end of one run of a job, which is said once. 200; 409 when the job does not
/// wait for it, or not any more; 404 for what we did not seal.
pub(crate) async fn call_back(
    app: &App,
    request: &Request,
    token: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let secrets = app.secrets.get(deadline).await.map_err(|error| {
        tracing::error!(error = %error, "call backs cannot be checked");
        ApiError::auth_unavailable()
    })?;
    let opened = secrets.signing_secret.and_then(|master| open_callback_token(&master, token));
    let (job_id, lease_token) = opened.ok_or_else(ApiError::not_found)?;
    let said = callback_body::<CalledBack>(request)?.vet()?;
    let now = app.db.call_back(job_id, lease_token, &said, deadline).await?;
    ok(&Heard { status: now.status, cancel_requested: now.cancel_requested })
}

impl CalledBack {
    fn vet(self) -> Result<CallBack, ApiError> {
        match self.status.as_str() {
            "succeeded" => {
                let output = self.output.unwrap_or_else(|| RawValue::NULL.to_owned());
                check_output(&output).map_err(|error| ApiError::invalid("invalid_output", error.message))?;
                if self.credits_used.is_some_and(|used| used < 0) {
                    let why = "credits_used is a whole number from 0.";
                    return Err(ApiError::invalid("invalid_credits_used", why));
                }
                Ok(CallBack::Done { output, used: self.credits_used })
            }
            "failed" => Ok(self.error.map_or_else(CallBackError::none, |error| error).vet()),
            "canceled" => {
                let error = JobError::new(ErrorCode::TargetError, "canceled by who did it");
                Ok(CallBack::Final(error))
            }
            // The words of those who do such work.
            "running" | "starting" | "processing" => match self.progress {
                None => Ok(CallBack::Progress { percent: None, message: None }),
                Some(progress) => progress.vet(),
            },
            _ => Err(ApiError::invalid(
                "invalid_status",
                "A status is running (or starting, processing), succeeded, failed or canceled.",
            )),
        }
    }
}

impl CallBackError {
    fn none() -> Self {
        Self::Text(String::new())
    }

    fn vet(self) -> CallBack {
        let (code, message, retryable) = match self {
            Self::Text(message) => (None, Some(message), None),
            Self::Object { code, message, retryable } => (code, message, retryable),
        };
        let message = message.filter(|text| !text.is_empty());
        let message = message.or_else(|| code.clone()).unwrap_or_else(|| "no reason was given".into());
        match code.as_deref() {
            Some("invalid_input") => CallBack::Final(JobError::new(ErrorCode::InvalidInput, message)),
            _ if retryable == Some(true) => CallBack::Err(JobError::new(ErrorCode::TargetError, message)),
            _ => CallBack::Final(JobError::new(ErrorCode::TargetError, message)),
        }
    }
}

impl CallBackProgress {
    fn vet(self) -> Result<CallBack, ApiError> {
        let percent = match self.percent {
            None => None,
            Some(percent @ 0..=100) => Some(percent as i16),
            Some(_) => return Err(ApiError::invalid("invalid_progress", "A percent is from 0 to 100.")),
        };
        let message = self.message.map(|text| text.chars().take(MAX_MESSAGE_CHARS).collect());
        Ok(CallBack::Progress { percent, message })
    }
}
