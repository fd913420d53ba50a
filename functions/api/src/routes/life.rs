//! What is done to jobs that were bought: canceled, retried, redriven; and what became of each run.

use serde::{Deserialize, Serialize};
use shared::{
    db::life::{FailedFilter, RedrivePace, Redriven, Retried},
    domain::{Deadline, Timestamp},
    wake::Message,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    LARGEST_PAGE, Page, bad_cursor, cursor, headers_of, is_kind, jobs::timestamp, known_query, no_job, ok,
    open_cursor, owner, path_id, respond,
};
use crate::{
    App,
    auth::{Scope, caller, uuid},
    error::ApiError,
    event::{Request, Response},
    headers::whole,
    json::body,
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::{
        jobs::Job,
        life::{Attempt, Event},
    },
};

/// Who may act on jobs that are not theirs.
const OPERATORS: &[Scope] = &[Scope::Operate];

/// Cancels a job.
///
/// One that is queued at once; one that is running is asked to stop. What it costs, its kind says.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs/{id}/cancel", tag = "jobs", params(JobId),
    responses(
        (status = 200, description = "The job is canceled.", body = Job),
        (status = 202, description = "It is running, and asked to stop.", body = Job, headers(
            ("retry-after" = i64, description = "Seconds until it is worth a look."))),
        Problems<(Caller, Scoped, Found, Cancelable)>)
))]
pub(crate) async fn cancel_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, OPERATORS)?;
    let job = app.db.cancel_and_show(path_id(id)?, owner, deadline).await?;
    if job.status.is_final() {
        // Somebody may be to be told.
        app.wake.send(&[Message::drain(job.account_id)], deadline).await;
    }
    let status = if job.status.is_final() { 200 } else { 202 };
    respond(status, &job, headers_of(&job, Vec::new()))
}

/// Buys a failed or canceled job once more.
///
/// As a new job, with an id and a hold of its own, at the price of now.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs/{id}/retry", tag = "jobs", params(JobId),
    responses(
        (status = 202, description = "The new job is queued, and its price is held.", body = Job, headers(
            ("location" = String, description = "Where the new job is."),
            ("retry-after" = i64, description = "Seconds until it is worth a look."))),
        Problems<(Caller, Scoped, Found, Holding, Retryable)>)
))]
pub(crate) async fn retry_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, OPERATORS)?;
    let Retried { job, wake_after, .. } = app.db.retry(path_id(id)?, owner, deadline).await?;
    let wake_up = wake_after.and_then(|after| Message::for_job(job.id, job.account_id, after));
    app.wake.send(wake_up.as_slice(), deadline).await;
    let location = ("location", format!("/api/jobs/{}", job.id));
    respond(202, &job, headers_of(&job, vec![location]))
}

/// Lists the runs of a job that have ended, oldest first.
///
/// `next_cursor` is the `after` of the next page; there is one only if the runs have more than 2.5 MB of errors.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}/attempts", tag = "jobs", params(JobId, AfterRun),
    responses(
        (status = 200, description = "The runs that have ended.", body = Page<Attempt>),
        Problems<(Caller, Scoped, Found, Queried, Placed)>)
))]
pub(crate) async fn list_attempts(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, &[Scope::Enqueue, Scope::Operate])?;
    let id = path_id(id)?;
    let after = after(request, "Send the number of a run.")?;
    let (attempts, more) = app.db.attempts(id, owner, after, deadline).await?;
    // None, or nobody's: a job that has not run yet is worth the second look.
    if attempts.is_empty() && app.db.is_final(id, owner, deadline).await?.is_none() {
        return Err(no_job(app, id, deadline).await);
    }
    let next_cursor = attempts.last().filter(|_| more).map(|run| run.number.to_string());
    ok(&Page { data: attempts, next_cursor })
}

/// Lists what has happened to a job, oldest first.
///
/// Numbers never change. `next_cursor` is the `after` of the next page.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}/events", tag = "jobs", params(JobId, After),
    responses(
        (status = 200, description = "Up to a hundred transitions.", body = Page<Event>),
        Problems<(Caller, Scoped, Found, Queried, Placed)>)
))]
pub(crate) async fn list_events(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, &[Scope::Enqueue, Scope::Operate])?;
    let id = path_id(id)?;
    let after = after(request, "Send the number of an event.")?;
    let events = app.db.events(id, owner, after, LARGEST_PAGE, deadline).await?;
    // None, or none yet after that one.
    if events.is_empty() && app.db.is_final(id, owner, deadline).await?.is_none() {
        return Err(no_job(app, id, deadline).await);
    }
    let more = events.last().filter(|_| events.len() as i64 == LARGEST_PAGE);
    let next_cursor = more.map(|event| event.number.to_string());
    ok(&Page { data: events, next_cursor })
}

/// The number after which a list goes on; 0 if there is none.
fn after(request: &Request, wanted: &'static str) -> Result<i64, ApiError> {
    known_query(request, &["after"])?;
    let after = request.query.get("after").map_or(Some(0), |after| whole(after)?.try_into().ok());
    after.ok_or_else(|| ApiError::bad("invalid_after", wanted))
}

/// Which failed jobs to retry, and how fast.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RedriveJobs {
    /// Only those whose error has this code.
    code: Option<String>,
    /// Only those of this account.
    #[cfg_attr(feature = "openapi", schema(format = Uuid))]
    account_id: Option<String>,
    /// Only those that failed then or later.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    failed_after: Option<String>,
    /// Only those that failed before.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    failed_before: Option<String>,
    /// At most so many; 100 if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    limit: Option<i32>,
    /// So many a second; all at once if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001, maximum = 10000))]
    per_second: Option<f64>,
    /// Go on behind the last redrive: its `next_cursor`.
    cursor: Option<String>,
}

/// What a redrive did.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RedrivenJobs {
    /// Jobs that are retried.
    redriven: usize,
    /// Jobs that are not.
    refused: usize,
    /// Each of them.
    data: Vec<Redriven>,
    /// Where the next redrive goes on; none if there was nothing more.
    next_cursor: Option<String>,
}

/// Retries failed jobs of a kind, oldest first, at a rate.
///
/// For services with the scope `operate`. Those that are refused, for want of credits say, are told, and stay as they are. It looks at
/// 10,000 failed jobs at most: as long as there is a `next_cursor`, there may be more, even if it found none.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/kinds/{kind}/redrive", tag = "operation", security(("service" = [])),
    params(("kind" = String, Path, description = "The kind.", pattern = "^[a-z0-9_.-]{1,64}$")),
    request_body = RedriveJobs,
    responses(
        (status = 200, description = "What became of each of them.", body = RedrivenJobs),
        Problems<(Caller, Scoped, Found, Body, Redrivable)>)
))]
pub(crate) async fn redrive(
    app: &App,
    request: &Request,
    kind: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    if !caller.has(OPERATORS) {
        return Err(ApiError::forbidden("Only a service token with the scope operate may."));
    }
    if !is_kind(kind) {
        return Err(ApiError::not_found());
    }
    let wanted: RedriveJobs = body(request)?;
    let account_id = match wanted.account_id {
        Some(id) => Some(uuid(&id).ok_or_else(|| ApiError::bad("invalid_field", "account_id is a UUID."))?),
        None => None,
    };
    let filter = FailedFilter {
        kind: Some(kind.to_owned()),
        code: wanted.code,
        account_id,
        from: wanted.failed_after.map(|text| timestamp("failed_after", &text)).transpose()?,
        until: wanted.failed_before.map(|text| timestamp("failed_before", &text)).transpose()?,
    };
    let limit = wanted.limit.unwrap_or(100);
    let after = wanted.cursor.map(|cursor| opened(&cursor).ok_or_else(bad_cursor)).transpose()?;
    let pace = RedrivePace { limit, per_second: wanted.per_second, delay: 0.0, after };
    let page = app.db.redrive(&filter, pace, deadline).await?;
    let refused = page.jobs.iter().filter(|job| job.refused.is_some()).count();
    let next_cursor = page.next.map(|(finished_at, id)| place(finished_at, id));
    ok(&RedrivenJobs { redriven: page.jobs.len() - refused, refused, data: page.jobs, next_cursor })
}

/// A cursor of no account's: where among the failed jobs a page ended.
fn place(finished_at: Timestamp, id: Uuid) -> String {
    let nanos = finished_at.0.unix_timestamp_nanos().to_be_bytes();
    cursor(&[nanos.as_slice(), id.as_bytes()].concat(), Uuid::nil())
}

fn opened(cursor: &str) -> Option<(Timestamp, Uuid)> {
    let bytes = open_cursor(cursor, Uuid::nil())?;
    let (nanos, id) = bytes.split_first_chunk::<16>()?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from_be_bytes(*nanos)).ok()?;
    Some((Timestamp(at), Uuid::from_slice(id).ok()?))
}
