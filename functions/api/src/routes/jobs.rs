//! Buying jobs, and showing them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    db::jobs::{JobFilter, JobOptions, NewJob},
    domain::{
        Deadline, RetryOverrides, Status, Timestamp,
        json::{at_most, distinct_at_most, pairs_at_most},
    },
    http_client::Allow,
    wake::Message,
};
use uuid::Uuid;

use super::{
    Page, as_replayed, bad_cursor, cursor, headers_of, idempotency_key, is_kind, known_query, no_job, ok,
    open_cursor, owner, page_size, path_id, respond, wait,
    webhooks::{WantedWebhook, vet_hosts},
};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
    headers::{entity_tag, matches},
    json::{MAX_INPUT_BYTES, body, large_body, member},
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::{batch::BatchedJob, jobs::Job},
};

/// Jobs of a batch.
const LARGEST_BATCH: usize = 1_000;
/// Tags and metadata that one list is filtered by.
const MOST_LABELS: usize = 10;

/// A job to buy.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateJob<'a> {
    /// What to do.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9_.-]{1,64}$"))]
    kind: String,
    /// With what: any JSON of up to 64 KiB; `{}` if it is left out.
    #[serde(borrow, default, deserialize_with = "verbatim")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    input: Option<&'a RawValue>,
    /// Higher first, up to its kind's `max_priority`; 0, or that if it is less, if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = -10, maximum = 10))]
    priority: Option<i64>,
    /// Not before: within 30 days; now if it is left out or past.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    run_at: Option<String>,
    /// Where it differs from its kind's policy.
    retry: Option<RetryOverrides>,
    /// The caller's own, to find the job by.
    #[serde(default, deserialize_with = "pairs_at_most::<16, _>")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::metadata))]
    metadata: Option<BTreeMap<String, String>>,
    /// The caller's own, to find the job by.
    #[serde(default, deserialize_with = "distinct_at_most::<10, _>")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::tags))]
    tags: Option<Vec<String>>,
    /// Who is told of it, instead of the account's webhook.
    webhook: Option<WantedWebhook>,
    /// Who pays; a service names it, a user never does.
    #[cfg_attr(feature = "openapi", schema(format = Uuid))]
    account_id: Option<String>,
}

/// A member that is there, even if it is `null`.
fn verbatim<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// A job to buy, its fields vetted.
#[derive(Serialize)]
struct Wanted<'a> {
    kind: String,
    input: &'a RawValue,
    priority: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    #[serde(flatten)]
    options: JobOptions,
}

impl<'a> CreateJob<'a> {
    fn vet(self, allow: Allow) -> Result<Wanted<'a>, ApiError> {
        if !is_kind(&self.kind) {
            return Err(ApiError::invalid("unknown_kind", "No such kind is offered."));
        }
        let input = match self.input {
            Some(input) => input,
            None => serde_json::from_str("{}").map_err(ApiError::unencodable)?,
        };
        if input.get().len() > MAX_INPUT_BYTES {
            return Err(ApiError::too_large("An input has at most 64 KiB of JSON."));
        }
        let priority = i16::try_from(self.priority.unwrap_or(0)).ok().filter(|it| (-10..=10).contains(it));
        let priority =
            priority.ok_or_else(|| ApiError::invalid("invalid_priority", "A priority is from -10 to 10."))?;
        let run_at = self.run_at.map(|text| timestamp("run_at", &text)).transpose()?;
        let mut tags = self.tags.unwrap_or_default();
        tags.sort_unstable();
        tags.dedup();
        let metadata = self.metadata.unwrap_or_default();
        let webhook = self.webhook.map(|webhook| webhook.vet(allow)).transpose()?;
        let options = JobOptions { retry: self.retry, metadata, tags, webhook };
        Ok(Wanted { kind: self.kind, input, priority, run_at, options })
    }
}

/// A point in time as RFC 3339 has it, with its offset, to the same in UTC as PostgreSQL reads it.
pub(super) fn timestamp(field: &'static str, text: &str) -> Result<String, ApiError> {
    let time = Timestamp::parse(text).ok_or_else(|| {
        ApiError::bad(format!("invalid_{field}"), format!("{field} is an RFC 3339 time with its offset."))
    })?;
    Ok(time.to_string())
}

/// Buys a job.
///
/// Holds the price of its kind and queues it. A replay of its key answers the job as it is now (as it was
/// bought, if that cannot be read at the moment), and charges nothing. With `Prefer: wait`, answers once the
/// job is final or that time is over.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs", tag = "jobs", params(IdempotencyKey, Preferences), request_body = CreateJob<'_>,
    responses(
        (status = 202, description = "Queued, and its price is held.", body = Job, headers(
            ("location" = String, description = "Where the job is."),
            ("preference-applied" = String, description = "`wait` and the seconds, if it was waited for."),
            ("retry-after" = i64, description = "Seconds until it is worth a look."))),
        (status = 200, description = "It is final already, or the key had bought it before.", body = Job, headers(
            ("location" = String, description = "Where the job is."),
            ("preference-applied" = String, description = "`wait` and the seconds, if it was waited for."),
            ("retry-after" = i64, description = "Seconds until it is worth a look, if it is not final."),
            ("idempotent-replayed" = String, description = "`true`, if the key had bought it before."))),
        Problems<(Caller, Account, Key, Body, Buying)>)
))]
pub(crate) async fn create_job(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let key = idempotency_key(request)?;
    let job: CreateJob<'_> = body(request)?;
    let account_id = caller.account(job.account_id.as_deref(), &[Scope::Enqueue])?;
    let Wanted { kind, input, priority, run_at, options } = job.vet(app.allow)?;
    let webhook: Vec<_> = options.webhook.iter().collect();
    vet_hosts(app, account_id, &webhook, key, deadline).await?;
    let job = NewJob { kind: &kind, input, priority, run_at: run_at.as_deref(), options: &options };
    let enqueued = app.db.enqueue(account_id, job, key, deadline).await?;
    let mut headers = vec![("location", format!("/api/jobs/{}", enqueued.job.id))];
    let wake_up = enqueued.wake_after.and_then(|after| Message::for_job(enqueued.job.id, account_id, after));
    app.wake.send(wake_up.as_slice(), deadline).await;
    if enqueued.replayed {
        headers.push(as_replayed());
    }
    let (job, waited) = match wait::preferred(app, request) {
        Some(seconds) => wait::after_buying(app, enqueued.job, seconds, deadline).await,
        None => (enqueued.job, None),
    };
    headers.extend(waited.map(|seconds| ("preference-applied", format!("wait={seconds}"))));
    let status = if enqueued.replayed || job.status.is_final() { 200 } else { 202 };
    respond(status, &job, headers_of(&job, headers))
}

/// Jobs to buy, all or none.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBatch<'a> {
    /// The jobs, none with an `account_id` of its own.
    #[serde(borrow, deserialize_with = "jobs_at_most")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<CreateJob<'static>>, min_items = 1, max_items = 1000))]
    jobs: Vec<&'a RawValue>,
    /// Who pays; a service names it, a user never does.
    #[cfg_attr(feature = "openapi", schema(format = Uuid))]
    account_id: Option<String>,
}

/// The jobs as they stand there: one more than there may be, and no further ones.
fn jobs_at_most<'de, D: serde::Deserializer<'de>>(jobs: D) -> Result<Vec<&'de RawValue>, D::Error> {
    at_most::<LARGEST_BATCH, _, _>(jobs).map(Option::unwrap_or_default)
}

/// Buys up to 1,000 jobs, all or none.
///
/// Holds the price of each. A replay of its key answers the batch as it was bought, and charges nothing.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs:batch", tag = "jobs", params(IdempotencyKey), request_body = CreateBatch<'_>,
    responses(
        (status = 202, description = "Queued, and the price of each is held.", body = Page<BatchedJob>),
        (status = 200, description = "The key had bought this batch before.", body = Page<BatchedJob>, headers(
            ("idempotent-replayed" = String, description = "`true`."))),
        Problems<(Caller, Account, Key, Body, Buying, Batch)>)
))]
pub(crate) async fn create_batch(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let key = idempotency_key(request)?;
    let batch: CreateBatch<'_> = large_body(request)?;
    let account_id = caller.account(batch.account_id.as_deref(), &[Scope::Enqueue])?;
    if !(1..=LARGEST_BATCH).contains(&batch.jobs.len()) {
        return Err(ApiError::invalid("invalid_batch", "A batch has 1 to 1000 jobs."));
    }
    let mut jobs = Vec::with_capacity(batch.jobs.len());
    for (number, job) in (1..).zip(batch.jobs) {
        let job = member::<CreateJob<'_>>(job).and_then(|job| match job.account_id {
            Some(_) => Err(ApiError::bad("unknown_field", "The account_id stands beside the jobs.")),
            None => job.vet(app.allow),
        });
        jobs.push(job.map_err(|error| error.of_job(number))?);
    }
    let webhooks: Vec<_> = jobs.iter().filter_map(|job: &Wanted<'_>| job.options.webhook.as_ref()).collect();
    vet_hosts(app, account_id, &webhooks, key, deadline).await?;
    let jobs = serde_json::to_string(&jobs).map_err(ApiError::unencodable)?;
    let enqueued = app.db.enqueue_batch(account_id, &jobs, key, deadline).await?;
    let wake_ups =
        enqueued.jobs.iter().filter_map(|job| Message::for_job(job.id, account_id, job.wake_after?));
    app.wake.send(&wake_ups.collect::<Vec<_>>(), deadline).await;
    let page = Page { data: enqueued.jobs, next_cursor: None };
    if enqueued.replayed { respond(200, &page, vec![as_replayed()]) } else { respond(202, &page, Vec::new()) }
}

/// Shows a job.
///
/// A user sees their own, a service with the scope `enqueue` or `operate` any. With `wait`, once it is final or that time is
/// over.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}", tag = "jobs", params(JobId, Waiting),
    responses(
        (status = 200, description = "The job as it is now.", body = Job, headers(
            ("etag" = String, description = "What this answer is known by."),
            ("retry-after" = i64, description = "Seconds until it is worth a look, if it is not final."))),
        (status = 304, description = "It is as the caller knows it.", headers(
            ("etag" = String, description = "What that answer is known by."),
            ("retry-after" = i64, description = "Seconds until it is worth a look, if it is not final."))),
        Problems<(Caller, Scoped, Found, Queried, Waited)>)
))]
pub(crate) async fn get_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, &[Scope::Enqueue, Scope::Operate])?;
    let id = path_id(id)?;
    known_query(request, &["wait"])?;
    let Some(job) = wait::find(app, id, owner, wait::asked(app, request)?, deadline).await? else {
        return Err(no_job(app, id, deadline).await);
    };
    let shown = respond(200, &job, headers_of(&job, Vec::new()))?;
    Ok(unless_known(request, shown))
}

/// The answer with its entity tag, to be asked for again before it is used again; 304 without a body if the caller has it.
fn unless_known(request: &Request, mut response: Response) -> Response {
    let tag = entity_tag(&response.body);
    if matches(&request.list("if-none-match"), &tag) {
        response.status = 304;
        response.body.clear();
    }
    response.headers.extend([("etag", tag), ("cache-control", "private, no-cache".into())]);
    response
}

/// Lists the jobs of an account, newest first, in pages.
///
/// A page may have fewer than `limit` jobs, even none, although there are more: as long as there is a `next_cursor`, the list goes
/// on. It ends with 2.5 MB of JSON, and once 10,000 jobs were looked at for those that are wanted.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs", tag = "jobs", params(JobsWanted, Paging, OfAccount),
    responses(
        (status = 200, description = "A page of jobs.", body = Page<Job>),
        Problems<(Caller, Account, Paged, Filtered)>)
))]
pub(crate) async fn list_jobs(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let labels = labels(request)?;
    known_query(request, &["status", "kind", "tag", "metadata.*", "limit", "cursor", "account_id"])?;
    let named = request.query.get("account_id").map(String::as_str);
    let account_id = caller.account(named, &[Scope::Enqueue, Scope::Operate])?;
    let status = match request.query.get("status") {
        Some(word) => {
            Some(Status::parse(word).ok_or_else(|| ApiError::bad("invalid_status", "No such status."))?)
        }
        None => None,
    };
    let before = match request.query.get("cursor") {
        Some(cursor) => {
            let id = open_cursor(cursor, account_id).and_then(|bytes| Uuid::from_slice(&bytes).ok());
            Some(id.ok_or_else(bad_cursor)?)
        }
        None => None,
    };
    let kind = request.query.get("kind").cloned();
    if kind.as_deref().is_some_and(|kind| !is_kind(kind)) {
        return Err(ApiError::bad("invalid_kind", "No kind has such a name."));
    }
    let limit = page_size(request)?;
    let filter = JobFilter { status, kind, labels, before };
    let page = app.db.list_jobs(account_id, &filter, limit, deadline).await?;
    let next_cursor = page.next.map(|before| cursor(before.as_bytes(), account_id));
    ok(&Page { data: page.jobs, next_cursor })
}

/// `tag=a,b` and `metadata.key=value`: the labels that a job must have, all of them.
fn labels(request: &Request) -> Result<Vec<String>, ApiError> {
    let mut labels = Vec::new();
    for (name, value) in &request.query {
        if name == "tag" {
            labels.extend(value.split(',').take(MOST_LABELS + 1).map(str::to_owned));
        } else if let Some(key) = name.strip_prefix("metadata.") {
            labels.push(format!("{key}={value}"));
        }
    }
    if labels.len() > MOST_LABELS {
        return Err(ApiError::bad("too_many_filters", "A list is filtered by up to ten tags and metadata."));
    }
    if labels.iter().any(|label| label.contains('\0')) {
        return Err(ApiError::bad("invalid_filter", "A filter cannot contain a NUL."));
    }
    Ok(labels)
}
