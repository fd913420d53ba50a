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
    Page, account, cursor, headers_of, is_kind, jobs::timestamp, known_query, no_job, numbered_cursor,
    numbered_page, ok, open_cursor, owner, path_id, respond, validate_only,
};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
    headers::whole,
    json::{body, no_body},
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::{
        jobs::Job,
        life::{Event, Run},
    },
};

/// Who may act on jobs that are not theirs.
const OPERATORS: &[Scope] = &[Scope::Operate];
/// What the cursors of a job's lists begin with: none is taken for another's.
const RUNS: &str = "runs";
const EVENTS: &str = "events";

/// Cancel a job.
///
/// One that is queued at once; one that is running is asked to stop. What it costs, its kind says.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs/{id}/cancel", tag = "jobs", params(JobId),
    responses(
        (status = 200, description = "The job is canceled.", body = Job),
        (status = 202, description = "It is running, and asked to stop.", body = Job, headers(
            ("retry-after" = i64, description = "Seconds until it is worth a look."))),
        Problems<(Caller, Scoped, Found, Queried, Bare, Cancelable)>)
))]
pub(crate) async fn cancel_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, OPERATORS)?;
    known_query(request, &[])?;
    no_body(request)?;
    let job = app.db.cancel_and_show(path_id(id)?, owner, deadline).await?;
    if job.status.is_final() {
        // Somebody may be to be told.
        app.wake.send(&[Message::drain(job.account_id)], deadline).await;
    }
    let status = if job.status.is_final() { 200 } else { 202 };
    respond(status, &job, headers_of(&job, Vec::new()))
}

/// Retry a failed or canceled job.
///
/// As a new job, with an id and a hold of its own, at the price of now.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs/{id}/retry", tag = "jobs", params(JobId),
    responses(
        (status = 202, description = "The new job is queued, and its price is held.", body = Job, headers(
            ("location" = String, description = "Where the new job is."),
            ("retry-after" = i64, description = "Seconds until it is worth a look."))),
        Problems<(Caller, Scoped, Found, Queried, Bare, Holding, Retryable)>)
))]
pub(crate) async fn retry_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, OPERATORS)?;
    known_query(request, &[])?;
    no_body(request)?;
    let Retried { job, wake_after, .. } = app.db.retry(path_id(id)?, owner, deadline).await?;
    let wake_up = wake_after.and_then(|after| Message::for_job(job.id, job.account_id, after));
    app.wake.send(wake_up.as_slice(), deadline).await;
    let location = ("location", format!("/api/jobs/{}", job.id));
    respond(202, &job, headers_of(&job, vec![location]))
}

/// List the runs of a job, oldest first.
///
/// Those that have ended. A page ends with 2.5 MB of errors, too.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}/runs", tag = "jobs", params(JobId, Paging),
    responses(
        (status = 200, description = "A page of runs.", body = Page<Run>),
        Problems<(Caller, Scoped, Found, Paged)>)
))]
pub(crate) async fn list_runs(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, &[Scope::Enqueue, Scope::Operate])?;
    let id = path_id(id)?;
    known_query(request, &["limit", "cursor"])?;
    let (limit, after) = numbered_page(request, RUNS, id)?;
    let (runs, more) = app.db.runs(id, owner, after, limit, deadline).await?;
    // None, or nobody's: a job that has not run yet is worth the second look.
    if runs.is_empty() && app.db.is_final(id, owner, deadline).await?.is_none() {
        return Err(no_job(app, id, deadline).await);
    }
    let next_cursor = runs.last().filter(|_| more).map(|run| numbered_cursor(RUNS, run.number, id));
    ok(&Page { data: runs, next_cursor, limit })
}

/// List the events of a job, oldest first.
///
/// Each is a transition of its status. Numbers rise, and never change.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}/events", tag = "jobs", params(JobId, After, Paging),
    responses(
        (status = 200, description = "A page of transitions.", body = Page<Event>),
        Problems<(Caller, Scoped, Found, Paged, Placed)>)
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
    known_query(request, &["after", "limit", "cursor"])?;
    let (limit, place) = numbered_page(request, EVENTS, id)?;
    let after = request.query.get("after").map_or(Some(0), |after| whole(after)?.try_into().ok());
    let after = after.ok_or_else(|| {
        ApiError::bad("invalid_after", "Send the number of an event.").of_parameter("after")
    })?;
    let after: i64 = place.max(after);
    let events = app.db.events(id, owner, after, limit, deadline).await?;
    // None, or none yet after that one.
    if events.is_empty() && app.db.is_final(id, owner, deadline).await?.is_none() {
        return Err(no_job(app, id, deadline).await);
    }
    let more = events.last().filter(|_| events.len() as i64 == limit);
    let next_cursor = more.map(|event| numbered_cursor(EVENTS, event.number, id));
    ok(&Page { data: events, next_cursor, limit })
}

/// Which failed jobs to retry, and how fast.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct RetryJobs {
    /// Only those of this kind; one of it and `account_id` must be named.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9_.-]{1,64}$"))]
    kind: Option<String>,
    /// Only those whose error has this code.
    code: Option<String>,
    /// Only those that failed then or later.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    failed_after: Option<String>,
    /// Only those that failed before.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    failed_before: Option<String>,
    /// At most so many; 100 if it is left out, and no more than 1,000.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    limit: Option<i64>,
    /// So many a second; all at once if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001, maximum = 10000))]
    per_second: Option<f64>,
    /// Go on behind the last call: its `next_cursor`.
    cursor: Option<String>,
}

/// What became of failed jobs that were to be retried.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RetriedJobs {
    /// How many jobs the filter found.
    matched: usize,
    /// How many of them are not retried; with `validate_only`, those whose kind is not offered any more.
    refused: usize,
    /// How many credits are held for those that are; with `validate_only`, would be, if the accounts can pay.
    credits: i64,
    /// Each of them; none with `validate_only`.
    data: Vec<Redriven>,
    /// The `cursor` of the next call; null if there was nothing more.
    next_cursor: Option<String>,
    /// How many one call takes at most.
    limit: i64,
}

/// Retry failed jobs, oldest first, at a rate.
///
/// For services with the scope `operate`. Those that are refused, for want of credits say, are named, and stay as they are. It looks at
/// 10,000 failed jobs at most: as long as there is a `next_cursor`, there may be more, even if it found none. With `validate_only`
/// it says how many it would try, and what they cost, and changes nothing.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs:retry", tag = "jobs", params(OfAccount, ValidateOnly), request_body = RetryJobs,
    responses(
        (status = 200, description = "What became of each of them.", body = RetriedJobs),
        Problems<(Caller, Scoped, Body, Queried, Validating, Redrivable)>)
))]
pub(crate) async fn retry_jobs(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    if !caller.has(OPERATORS) {
        return Err(ApiError::forbidden("Only a service token with the scope operate may."));
    }
    known_query(request, &["account_id", "validate_only"])?;
    let account_id = match request.query.get("account_id") {
        Some(_) => Some(account(&caller, request, OPERATORS)?),
        None => None,
    };
    let wanted: RetryJobs = body(request)?;
    if wanted.kind.as_deref().is_some_and(|kind| !is_kind(kind)) {
        return Err(ApiError::bad("invalid_kind", "No kind has such a name.").at("/kind"));
    }
    let filter = FailedFilter {
        kind: wanted.kind,
        code: wanted.code,
        account_id,
        from: wanted.failed_after.map(|text| timestamp("failed_after", &text)).transpose()?,
        until: wanted.failed_before.map(|text| timestamp("failed_before", &text)).transpose()?,
    };
    if filter.kind.is_none() && filter.account_id.is_none() {
        return Err(ApiError::invalid("invalid_redrive", "Name a kind, or an account.").at("/kind"));
    }
    let limit = i32::try_from(wanted.limit.unwrap_or(100).min(1_000)).unwrap_or(0);
    if limit < 1 {
        let error = ApiError::invalid("invalid_redrive", "A limit is a whole number from 1 on.");
        return Err(error.at("/limit"));
    }
    if wanted.per_second.is_some_and(|rate| !(0.001..=10_000.0).contains(&rate)) {
        let error = ApiError::invalid("invalid_redrive", "A rate is from 0.001 to 10000 a second.");
        return Err(error.at("/per_second"));
    }
    let bad_cursor = || ApiError::bad("invalid_cursor", "Send a next_cursor as it was given.").at("/cursor");
    let after = wanted.cursor.map(|cursor| opened(&cursor).ok_or_else(bad_cursor)).transpose()?;
    if validate_only(request)? {
        let page = app.db.redrivable_jobs(&filter, limit.into(), after, deadline).await?;
        // At the prices of now; what is not offered any more is refused. Whether accounts can pay is not looked at.
        let kinds = app.db.list_kinds(deadline).await?;
        let price =
            |name: &str| kinds.iter().find(|kind| kind.name == name && !kind.retired).map(|kind| kind.price);
        let prices: Vec<i64> = page.jobs.iter().filter_map(|job| price(&job.kind)).collect();
        let (matched, refused) = (page.jobs.len(), page.jobs.len() - prices.len());
        let next_cursor = page.next.map(|(finished_at, id)| place(finished_at, id));
        let (credits, limit) = (prices.iter().sum(), limit.into());
        return ok(&RetriedJobs { matched, refused, credits, data: Vec::new(), next_cursor, limit });
    }
    let pace = RedrivePace { limit, per_second: wanted.per_second, delay: 0.0, after };
    let page = app.db.redrive(&filter, pace, deadline).await?;
    let refused = page.jobs.iter().filter(|job| job.refused.is_some()).count();
    let next_cursor = page.next.map(|(finished_at, id)| place(finished_at, id));
    let credits = page.jobs.iter().filter_map(|job| job.price).sum();
    let (matched, limit) = (page.jobs.len(), limit.into());
    ok(&RetriedJobs { matched, refused, credits, data: page.jobs, next_cursor, limit })
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
    // PostgreSQL knows no year 0.
    let at = (at >= OffsetDateTime::UNIX_EPOCH).then_some(at)?;
    Some((Timestamp(at), Uuid::from_slice(id).ok()?))
}
