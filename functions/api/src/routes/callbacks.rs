//! Call backs: how a job that somebody outside is at work on goes on and ends. Who may is in the URL.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    db::callbacks::CallBack,
    domain::{Deadline, ErrorCode, JobError, Status, verdict::check_output},
    signing::open_callback_token,
    wake::Message,
};

use super::ok;
#[cfg(feature = "openapi")]
use crate::openapi::{params::Token, problems::*};
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct CalledBack {
    /// `running` (or `starting`, `processing`), `succeeded`, `failed` or `canceled` (or `aborted`).
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = "^(running|starting|processing|succeeded|failed|canceled|aborted)$")
    )]
    status: String,
    /// The job's output, of one that has succeeded: up to 64 KiB of JSON.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    output: Option<Box<RawValue>>,
    /// What went wrong, of one that has failed.
    error: Option<CallBackError>,
    /// How far it is, of one that goes on.
    progress: Option<CallBackProgress>,
    /// What a metered job used; all that is held, if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    credits_used: Option<i64>,
}

/// What went wrong: a text or, as a program would say it, an object.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
enum CallBackError {
    /// For a person.
    Text(String),
    /// For a program, too.
    Object {
        /// `invalid_input` blames the input; any other word is for a person.
        code: Option<String>,
        /// For a person.
        message: Option<String>,
        /// Whether it may be tried again, while attempts are left.
        retryable: Option<bool>,
    },
}

#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct CallBackProgress {
    /// 0 to 100.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 100))]
    percent: Option<i64>,
    /// What is being done, for a person; cut at 200 characters.
    message: Option<String>,
}

/// The job as it is after the call.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Heard {
    /// Where the job stands: `running` after progress.
    status: Status,
    /// Whether the job is to be canceled: work on it can stop.
    cancel_requested: bool,
}

/// Call back for a job that runs outside.
///
/// With progress, or with its end, which is said once. Whoever has the URL may.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/callbacks/{token}", tag = "jobs", params(Token), request_body = CalledBack, security(()),
    responses(
        (status = 200, description = "It is recorded.", body = Heard),
        Problems<(Database, Found, Body, CallingBack)>)
))]
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
    if now.status != Status::Running {
        // It is to be tried again, or somebody to be told of its end.
        app.wake.send(&[Message::drain(job_id)], deadline).await;
    }
    ok(&Heard { status: now.status, cancel_requested: now.cancel_requested })
}

impl CalledBack {
    fn vet(self) -> Result<CallBack, ApiError> {
        if self.credits_used.is_some_and(|used| used < 0) {
            return Err(ApiError::invalid("invalid_credits_used", "credits_used is a whole number from 0.")
                .at("/credits_used"));
        }
        let progress = self.progress.map_or(Ok((None, None)), CallBackProgress::vet)?;
        match self.status.as_str() {
            "succeeded" => {
                let output = self.output.unwrap_or_else(|| RawValue::NULL.to_owned());
                // As a target's answer: the work is done, and no call would say it otherwise.
                Ok(match check_output(&output) {
                    Ok(()) => CallBack::Done { output, used: self.credits_used },
                    Err(error) => CallBack::Final(error),
                })
            }
            "failed" => Ok(self.error.unwrap_or_else(CallBackError::none).vet()),
            word @ ("canceled" | "aborted") => {
                let error = JobError::new(ErrorCode::TargetError, format!("{word} by who did it"));
                Ok(CallBack::Final(error))
            }
            // The words of those who do such work.
            "running" | "starting" | "processing" => {
                let (percent, message) = progress;
                Ok(CallBack::Progress { percent, message })
            }
            _ => Err(ApiError::invalid(
                "invalid_status",
                "A status is running (or starting, processing), succeeded, failed or canceled (or aborted).",
            )
            .at("/status")
            .allowed([
                "running",
                "starting",
                "processing",
                "succeeded",
                "failed",
                "canceled",
                "aborted",
            ])),
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
    fn vet(self) -> Result<(Option<i16>, Option<String>), ApiError> {
        let percent = match self.percent {
            None => None,
            Some(percent @ 0..=100) => Some(percent as i16),
            Some(_) => {
                return Err(ApiError::invalid("invalid_progress", "A percent is from 0 to 100.")
                    .at("/progress/percent"));
            }
        };
        let message = self.message.map(|text| text.chars().take(MAX_MESSAGE_CHARS).collect());
        Ok((percent, message))
    }
}
