//! Buying jobs, and showing them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    db::{
        batch::BatchedJob,
        jobs::{JobFilter, JobOptions, NewJob},
    },
    domain::{
        Deadline, RetryOverrides, Status, Timestamp,
        json::{at_most, distinct_at_most, pairs_at_most},
    },
    http_client::Allow,
    wake::Message,
};
use uuid::Uuid;

use super::{
    LARGEST_PAGE, Page, account, as_replayed, bad_cursor, cursor, headers_of, idempotency_key, is_kind,
    known_query, no_job, ok, open_cursor, owner, page_size, path_id, respond, wait,
    webhooks::{WantedWebhook, vet_hosts},
};
use crate::{
    App,
    auth::{Scope, caller},
    error::{ApiError, MOST_FLAWS},
    event::{Request, Response},
    headers::{entity_tag, matches},
    json::{MAX_INPUT_BYTES, body, large_body, member, short},
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::{batch::Validated, jobs::Job},
};

/// Jobs of a batch.
const LARGEST_BATCH: usize = 1_000;
/// Words of one parameter of a list.
const MOST_WORDS: usize = 20;
/// Labels that one list is filtered by.
const MOST_LABELS: usize = 10;

/// A job to buy.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct CreateJob<'a> {
    /// The kind of the job: what is to be done, and at which price.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9_.-]{1,64}$"))]
    kind: String,
    /// The input: any JSON of up to 64 KiB; `{}` if it is left out.
    #[serde(borrow, default, deserialize_with = "verbatim")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    input: Option<&'a RawValue>,
    /// Higher first, up to its kind's `max_priority`; 0, or that if it is less, if it is left out.
    #[cfg_attr(feature = "openapi", schema(minimum = -10, maximum = 10))]
    priority: Option<i64>,
    /// When the job is due, within 30 days; now if it is left out or past.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    run_at: Option<String>,
    /// Where it differs from its kind's policy.
    retry: Option<RetryOverrides>,
    /// The caller's own, to find the job by (`label`).
    #[serde(default, deserialize_with = "pairs_at_most::<16, _>")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::metadata))]
    metadata: Option<BTreeMap<String, String>>,
    /// The caller's own, to find the job by (`label`).
    #[serde(default, deserialize_with = "distinct_at_most::<10, _>")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::tags))]
    tags: Option<Vec<String>>,
    /// Who is told of it, instead of the account's webhook.
    webhook: Option<WantedWebhook>,
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
        let unknown = || ApiError::invalid("unknown_kind", "No such kind is offered.").at("/kind");
        let kind = is_kind(&self.kind).then_some(self.kind).ok_or_else(unknown);
        let input = match self.input {
            Some(input) if input.get().len() > MAX_INPUT_BYTES => {
                Err(ApiError::too_large("An input has at most 64 KiB of JSON.").at("/input"))
            }
            Some(input) => Ok(input),
            None => serde_json::from_str("{}").map_err(ApiError::unencodable),
        };
        let priority = i16::try_from(self.priority.unwrap_or(0)).ok().filter(|it| (-10..=10).contains(it));
        let priority = priority.ok_or_else(|| {
            ApiError::invalid("invalid_priority", "A priority is from -10 to 10.").at("/priority")
        });
        let run_at = self.run_at.map(|text| timestamp("run_at", &text)).transpose();
        let webhook = self.webhook.map(|webhook| webhook.vet("/webhook", allow)).transpose();
        match (kind, input, priority, run_at, webhook) {
            (Ok(kind), Ok(input), Ok(priority), Ok(run_at), Ok(webhook)) => {
                let mut tags = self.tags.unwrap_or_default();
                tags.sort_unstable();
                tags.dedup();
                let metadata = self.metadata.unwrap_or_default();
                let options = JobOptions { retry: self.retry, metadata, tags, webhook };
                Ok(Wanted { kind, input, priority, run_at, options })
            }
            (kind, input, priority, run_at, webhook) => {
                let wrong = [kind.err(), input.err(), priority.err(), run_at.err(), webhook.err()];
                Err(ApiError::all(wrong.into_iter().flatten()).unwrap_or_else(unknown))
            }
        }
    }
}

/// A point in time as RFC 3339 has it, with its offset, to the same in UTC as PostgreSQL reads it.
pub(super) fn timestamp(field: &'static str, text: &str) -> Result<String, ApiError> {
    let time = Timestamp::parse(text).ok_or_else(|| {
        let detail = format!("{field} is an RFC 3339 time with its offset.");
        ApiError::bad(format!("invalid_{field}"), detail).at(&format!("/{field}"))
    })?;
    Ok(time.to_string())
}

/// Create a job.
///
/// Holds the price of its kind and queues it. A replay of its key answers the job as it is now (as it was
/// bought, if that cannot be read at the moment), and charges nothing. With `Prefer: wait`, answers once the
/// job is final or that time is over.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs", tag = "jobs", params(IdempotencyKey, Preferences, OfAccount), request_body = CreateJob<'_>,
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
        Problems<(Caller, Account, Key, Body, Buying, Queried)>)
))]
pub(crate) async fn create_job(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let key = idempotency_key(request)?;
    let job: CreateJob<'_> = body(request)?;
    let account_id = account(&caller, request, &[Scope::Enqueue])?;
    let Wanted { kind, input, priority, run_at, options } = job.vet(app.allow)?;
    let webhook: Vec<_> = options.webhook.iter().collect();
    vet_hosts(app, account_id, &webhook, key, deadline).await?;
    let job = NewJob { kind: &kind, input, priority, run_at: run_at.as_deref(), options: &options };
    let enqueued = app.db.enqueue(account_id, job, key, deadline).await;
    let enqueued = enqueued.map_err(|error| ApiError::from(error).in_body())?;
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
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct CreateBatch<'a> {
    /// The jobs.
    #[serde(borrow, deserialize_with = "jobs_at_most")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<CreateJob<'static>>, min_items = 1, max_items = 1000))]
    jobs: Vec<&'a RawValue>,
}

/// The jobs as they stand there: one more than there may be, and no further ones.
fn jobs_at_most<'de, D: serde::Deserializer<'de>>(jobs: D) -> Result<Vec<&'de RawValue>, D::Error> {
    at_most::<LARGEST_BATCH, _, _>(jobs).map(Option::unwrap_or_default)
}

/// What a batch bought.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Batch {
    /// Its jobs, in the order in which they were sent.
    jobs: Vec<BatchedJob>,
}

/// Create up to 1,000 jobs, all or none.
///
/// Holds the price of each. A replay of its key answers the batch as it was bought, and charges nothing.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs:batch", tag = "jobs", params(IdempotencyKey, OfAccount), request_body = CreateBatch<'_>,
    responses(
        (status = 202, description = "Queued, and the price of each is held.", body = Batch),
        (status = 200, description = "The key had bought this batch before.", body = Batch, headers(
            ("idempotent-replayed" = String, description = "`true`."))),
        Problems<(Caller, Account, Key, Body, Buying, Batched, Queried)>)
))]
pub(crate) async fn create_batch(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let key = idempotency_key(request)?;
    let (account_id, jobs) = wanted_batch(app, request, key, deadline).await?;
    let enqueued = app.db.enqueue_batch(account_id, &jobs, key, deadline).await;
    let enqueued = enqueued.map_err(|error| ApiError::from(error).in_batch())?;
    let wake_ups =
        enqueued.jobs.iter().filter_map(|job| Message::for_job(job.id, account_id, job.wake_after?));
    app.wake.send(&wake_ups.collect::<Vec<_>>(), deadline).await;
    let batch = Batch { jobs: enqueued.jobs };
    if enqueued.replayed {
        respond(200, &batch, vec![as_replayed()])
    } else {
        respond(202, &batch, Vec::new())
    }
}

/// Validate jobs, and say what they would cost.
///
/// Nothing is bought. Everything is checked as if it were: each job, the limits of the account, and whether it can pay.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/jobs:validate", tag = "jobs", params(OfAccount), request_body = CreateBatch<'_>,
    responses(
        (status = 200, description = "It could be bought now.", body = Validated),
        Problems<(Caller, Account, Body, Buying, Batched, Queried)>)
))]
pub(crate) async fn validate_jobs(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let (account_id, jobs) = wanted_batch(app, request, None, deadline).await?;
    let validated = app.db.validate_batch(account_id, &jobs, deadline).await;
    ok(&validated.map_err(|error| ApiError::from(error).in_batch())?)
}

/// Who pays for a batch, and its jobs as the database takes them, each vetted.
async fn wanted_batch(
    app: &App,
    request: &Request,
    key: Option<&str>,
    deadline: Deadline,
) -> Result<(Uuid, String), ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let batch: CreateBatch<'_> = large_body(request)?;
    let account_id = account(&caller, request, &[Scope::Enqueue])?;
    if !(1..=LARGEST_BATCH).contains(&batch.jobs.len()) {
        return Err(ApiError::invalid("invalid_batch", "A batch has 1 to 1000 jobs.").at("/jobs"));
    }
    let (mut jobs, mut wrong) = (Vec::with_capacity(batch.jobs.len()), Vec::new());
    for (index, job) in batch.jobs.into_iter().enumerate() {
        match member::<CreateJob<'_>>(job).and_then(|job| job.vet(app.allow)) {
            Ok(job) => jobs.push(job),
            Err(error) => wrong.push(error.of_job(index)),
        }
        if wrong.len() == MOST_FLAWS {
            break;
        }
    }
    if let Some(error) = ApiError::all(wrong) {
        return Err(error);
    }
    let webhooks: Vec<_> = jobs.iter().filter_map(|job: &Wanted<'_>| job.options.webhook.as_ref()).collect();
    vet_hosts(app, account_id, &webhooks, key, deadline).await?;
    Ok((account_id, serde_json::to_string(&jobs).map_err(ApiError::unencodable)?))
}

/// Show a job.
///
/// A user sees their own, a service with the scope `enqueue` or `operate` any. With `wait`, once it is final or that time is
/// over; with `If-None-Match` as well, once anything of it has changed, its progress too.
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
    let (wait, known) = (wait::asked(app, request)?, request.list("if-none-match"));
    let found = if wait.is_zero() || known.is_empty() {
        wait::find(app, id, owner, wait, deadline).await?
    } else {
        wait::find_changed(
            app,
            id,
            owner,
            |job| serde_json::to_string(job).is_ok_and(|shown| matches(&known, &entity_tag(&shown))),
            wait,
            deadline,
        )
        .await?
    };
    let Some(job) = found else {
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

/// List jobs, newest first.
///
/// Without their inputs and outputs, unless `include` asks for them. A page may have fewer than `limit` jobs, even none, although there are more: as long as there is a `next_cursor`, the list goes
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
    known_query(request, LIST_PARAMETERS)?;
    let account_id = account(&caller, request, &[Scope::Enqueue, Scope::Operate])?;
    let before = match request.query.get("cursor") {
        Some(cursor) => {
            let id = open_cursor(cursor, account_id).and_then(|bytes| Uuid::from_slice(&bytes).ok());
            Some(id.ok_or_else(bad_cursor)?)
        }
        None => None,
    };
    let kind = request.query.get("kind").cloned();
    if kind.as_deref().is_some_and(|kind| !is_kind(kind)) {
        return Err(ApiError::bad("invalid_kind", "No kind has such a name.").of_parameter("kind"));
    }
    let (limit, wanted) = (page_size(request, LARGEST_PAGE)?, words(request, "include")?);
    if let Some(word) = wanted.iter().find(|word| !INCLUDED.contains(&word.as_str())) {
        let error =
            ApiError::bad("invalid_include", format!("Nothing of a job is called {:?}.", short(word)));
        return Err(error.of_parameter("include").allowed(INCLUDED));
    }
    let filter = JobFilter {
        statuses: statuses(request)?,
        kind,
        labels: labels(request)?,
        before,
        created_after: query_time(request, "created_after")?,
        created_before: query_time(request, "created_before")?,
        input: wanted.iter().any(|word| word == "input"),
        output: wanted.iter().any(|word| word == "output"),
    };
    let page = app.db.list_jobs(account_id, &filter, limit, deadline).await?;
    let next_cursor = page.next.map(|before| cursor(before.as_bytes(), account_id));
    ok(&Page { data: page.jobs, next_cursor, limit })
}

/// What a list of jobs is asked by.
const LIST_PARAMETERS: &[&str] = &[
    "status",
    "kind",
    "label",
    "created_after",
    "created_before",
    "include",
    "limit",
    "cursor",
    "account_id",
];
/// What a list leaves out of its jobs unless it is asked for.
const INCLUDED: [&str; 2] = ["input", "output"];

/// The words of a parameter that is a list: it stands there several times, or has commas between them.
fn words(request: &Request, name: &str) -> Result<Vec<String>, ApiError> {
    let values = request.repeated(name, MOST_WORDS + 1);
    let words = values.iter().flat_map(|value| value.split(',')).take(MOST_WORDS + 1);
    let words: Vec<String> = words.map(str::to_owned).collect();
    match words.len() {
        0..=MOST_WORDS => Ok(words),
        _ => {
            let detail = format!("{name} has up to {MOST_WORDS} words.");
            Err(ApiError::bad("too_many_filters", detail).of_parameter(name))
        }
    }
}

fn statuses(request: &Request) -> Result<Vec<Status>, ApiError> {
    let parsed = words(request, "status")?.into_iter().map(|word| {
        Status::parse(&word).ok_or_else(|| {
            let right = Status::ALL.map(|status| status.as_str());
            ApiError::bad("invalid_status", "No such status.").of_parameter("status").allowed(right)
        })
    });
    parsed.collect()
}

fn query_time(request: &Request, name: &'static str) -> Result<Option<String>, ApiError> {
    let Some(text) = request.query.get(name) else { return Ok(None) };
    let time = Timestamp::parse(text).ok_or_else(|| {
        let detail = format!("{name} is an RFC 3339 time with its offset.");
        ApiError::bad(format!("invalid_{name}"), detail).of_parameter(name)
    })?;
    Ok(Some(time.to_string()))
}

/// `label=red&label=order=7`: the labels that a job must have, all of them: tags, and pairs of the metadata.
fn labels(request: &Request) -> Result<Vec<String>, ApiError> {
    let labels = request.repeated("label", MOST_LABELS + 1);
    if labels.len() > MOST_LABELS {
        let error = ApiError::bad("too_many_filters", "A list is filtered by up to ten labels.");
        return Err(error.of_parameter("label"));
    }
    if labels.iter().any(|label| label.contains('\0')) {
        return Err(ApiError::bad("invalid_filter", "A label cannot contain a NUL.").of_parameter("label"));
    }
    Ok(labels)
}
