//! The parameters of the API, other than bodies, as the document describes them. Fields stand here for what they say of
//! themselves: the endpoints read the request.
#![allow(dead_code)]

use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

/// A job, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct JobId {
    /// The job.
    id: uuid::Uuid,
}

/// A key, if the caller sends one.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// With the same key the same is done once, however often it is sent. Printable ASCII without a comma.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        pattern = "^[!-+\\--~]([ -+\\--~]{0,126}[!-+\\--~])?$"
    )]
    key: Option<String>,
}

/// How long the caller would wait.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Preferred {
    /// `wait=N`: answer once the job is final, or after so many seconds, at most 25 (RFC 7240).
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}

/// How long the caller waits for a job, and what they know of it.
pub(crate) struct Waited;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Answer once the job is final, or after so many seconds.
    #[param(minimum = 0, maximum = 25, nullable = false)]
    wait: Option<u64>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
struct Known {
    /// The `ETag` of what the caller knows: if it is still so, the answer is 304.
    #[param(rename = "If-None-Match", nullable = false)]
    known: Option<String>,
}

impl IntoParams for Waited {
    fn into_params(parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [Wait::into_params(&parameter_in), Known::into_params(&parameter_in)].concat()
    }
}

/// Which transitions.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// Only those after the one of this number.
    #[param(minimum = 0, nullable = false)]
    after: Option<i64>,
}

/// Who may call back for a job, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Token {
    /// The end of the `callback_url` that the kind's target was sent.
    token: String,
}

/// A key that must be sent.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct RequiredIdempotencyKey {
    /// With the same key the same is done once, however often it is sent. Printable ASCII without a comma.
    #[param(rename = "Idempotency-Key", pattern = "^[!-+\\--~]([ -+\\--~]{0,126}[!-+\\--~])?$")]
    key: String,
}

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Entries of a page; 20 if it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Whose.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfAccount {
    /// Whose; a service names it, a user never does.
    account_id: Option<uuid::Uuid>,
}

/// Which jobs.
pub(crate) struct JobsWanted;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct PlainJobsWanted {
    /// Only jobs of this status.
    #[param(inline)]
    status: Option<shared::domain::Status>,
    /// Only jobs of this kind.
    #[param(pattern = "^[a-z0-9_.-]{1,64}$")]
    kind: Option<String>,
    /// Only jobs with all of these tags, with commas between them.
    #[param(style = Form, explode = false, max_items = 10)]
    tag: Option<Vec<String>>,
}

impl IntoParams for JobsWanted {
    fn into_params(parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = PlainJobsWanted::into_params(parameter_in);
        params.push(super::metadata_wanted());
        params
    }
}
