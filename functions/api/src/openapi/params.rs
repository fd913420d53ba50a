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

/// An account, in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct AccountId {
    /// The account.
    account_id: uuid::Uuid,
}

/// Which page of an export.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportWanted {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A key, if the caller sends one.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// With the same key the same is done once, however often it is sent, for as long as keys are kept (400 days unless the
    /// operator says otherwise); sent again after that, it buys again. Printable ASCII without a comma; one pair of quotes around
    /// it, as a structured string has, is no part of it, and then there is neither a quote nor a backslash in it.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        pattern = "^([!#-+\\--~]([ -+\\--~]{0,126}[!#-+\\--~])?|\"[!#-+\\--\\[\\]-~]([ !#-+\\--\\[\\]-~]{0,126}[!#-+\\--\\[\\]-~])?\")$"
    )]
    key: Option<String>,
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
    /// With the same key the same is done once, however often it is sent, for as long as keys are kept (400 days unless the
    /// operator says otherwise); sent again after that, it buys again. Printable ASCII without a comma; one pair of quotes around
    /// it, as a structured string has, is no part of it, and then there is neither a quote nor a backslash in it.
    #[param(
        rename = "Idempotency-Key",
        pattern = "^([!#-+\\--~]([ -+\\--~]{0,126}[!#-+\\--~])?|\"[!#-+\\--\\[\\]-~]([ !#-+\\--\\[\\]-~]{0,126}[!#-+\\--\\[\\]-~])?\")$"
    )]
    key: String,
}

/// What the caller would like.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Preferences {
    /// `wait=10`: to be answered once the job is final, or after so many seconds, 25 at most (RFC 7240).
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}

/// How long to wait for a job, and what is known of it.
pub(crate) struct Waiting;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Answer once the job is final, or after so many seconds.
    #[param(minimum = 0, maximum = 25)]
    wait: Option<i64>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
struct Known {
    /// The entity tags of what the caller has: 304 if the job is as one of them (RFC 9110).
    #[param(rename = "If-None-Match", nullable = false)]
    tags: Option<String>,
}

impl IntoParams for Waiting {
    fn into_params(parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = Wait::into_params(&parameter_in);
        params.extend(Known::into_params(&parameter_in));
        params
    }
}

/// Which transitions of a job.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// Only those after the one of this number.
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Entries of a page; 20 if it is left out. More than 100 are taken for 100: `limit` in the answer says so.
    #[param(minimum = 1)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which statement, and which page of it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatementWanted {
    /// A month, in UTC: `2026-11`.
    #[param(pattern = "^(19[7-9][0-9]|20[0-9][0-9]|210[0-8])-(0[1-9]|1[0-2])$")]
    month: String,
    /// `json`, or `csv`.
    #[param(pattern = "^(json|csv)$")]
    format: Option<String>,
    /// Entries of a page; 1,000 if it is left out, or if it is more: `limit` in the answer says so.
    #[param(minimum = 1)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Of which account.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfAccount {
    /// The account; a service names it, a user never does.
    account_id: Option<uuid::Uuid>,
}

/// Whether to do it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ValidateOnly {
    /// `true`: everything is checked as ever, and nothing is done.
    validate_only: Option<bool>,
}

/// Whose, of what a service alone does.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NamedAccount {
    /// The account.
    account_id: uuid::Uuid,
}

/// Which jobs, and what of them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsWanted {
    /// Only jobs of one of these statuses.
    #[param(style = Form, explode = true, max_items = 5)]
    status: Option<Vec<shared::domain::Status>>,
    /// Only jobs of this kind.
    #[param(pattern = "^[a-z0-9_.-]{1,64}$")]
    kind: Option<String>,
    /// Only jobs with all of these labels: tags (`label=red`), and pairs of the metadata (`label=order=7`).
    #[param(style = Form, explode = true, max_items = 10, inline)]
    label: Option<Vec<Label>>,
    /// Only jobs that were created then or later (RFC 3339).
    #[param(format = DateTime)]
    created_after: Option<String>,
    /// Only jobs that were created before.
    #[param(format = DateTime)]
    created_before: Option<String>,
    /// What else to show of each job: `input`, `output`.
    #[param(style = Form, explode = true, max_items = 2, inline)]
    include: Option<Vec<Included>>,
}

/// A tag, or `key=value` of the metadata.
#[derive(utoipa::ToSchema)]
#[schema(pattern = "^[^\\u0000]*$")]
pub(crate) struct Label(String);

/// What a list of jobs leaves out unless it is asked for.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Included {
    Input,
    Output,
}
