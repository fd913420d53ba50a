//! The endpoints. Each turns a request into typed values, makes one call to the database, and answers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};
use shared::{
    db::jobs::{JobFilter, NewJob},
    domain::{Deadline, Status, Timestamp},
    wake::Message,
};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    App,
    auth::{Scope, caller, uuid},
    error::ApiError,
    event::{Request, Response},
    json::{MAX_INPUT_BYTES, body, large_body, member},
};

/// Entries of a page unless asked otherwise, and at most.
const PAGE: i64 = 20;
const LARGEST_PAGE: i64 = 100;
/// Jobs of a batch.
const LARGEST_BATCH: usize = 1_000;

/// Entries, and where the next page begins.
#[derive(Serialize)]
struct Page<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

fn as_replayed() -> (&'static str, String) {
    ("idempotent-replayed", "true".into())
}

fn ok(body: &impl Serialize) -> Result<Response, ApiError> {
    respond(200, body, Vec::new())
}

fn respond(
    status: u16,
    body: &impl Serialize,
    headers: Vec<(&'static str, String)>,
) -> Result<Response, ApiError> {
    let body = serde_json::to_string(body).map_err(ApiError::unencodable)?;
    Ok(Response { status, headers, body })
}

/// `GET /api/health`: whether the API reaches its database; 503 if not. Needs no token and says nothing else.
pub(crate) async fn health(app: &App, deadline: Deadline) -> Result<Response, ApiError> {
    let oldest = app.db.oldest_due(deadline.within(std::time::Duration::from_secs(5))).await?;
    ok(&json!({ "status": "ok", "oldest_due_seconds": oldest.map_or(0, |waiting| waiting.as_secs()) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateJob {
    kind: String,
    #[serde(default, deserialize_with = "verbatim")]
    input: Option<Box<RawValue>>,
    priority: Option<i64>,
    run_at: Option<String>,
    account_id: Option<String>,
}

/// A member that is there, even if it is `null`.
fn verbatim<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(value).map(Some)
}

/// A job to buy, its fields vetted.
#[derive(Serialize)]
struct Wanted {
    kind: String,
    input: Box<RawValue>,
    priority: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
}

impl CreateJob {
    fn vet(self) -> Result<Wanted, ApiError> {
        if !is_kind(&self.kind) {
            return Err(ApiError::invalid("unknown_kind", "No such kind is offered."));
        }
        let input = match self.input {
            Some(input) => input,
            None => serde_json::value::to_raw_value(&json!({})).map_err(ApiError::unencodable)?,
        };
        if input.get().len() > MAX_INPUT_BYTES {
            return Err(ApiError::too_large("An input has at most 64 KiB of JSON."));
        }
        let priority = i16::try_from(self.priority.unwrap_or(0)).ok().filter(|it| (-10..=10).contains(it));
        let priority =
            priority.ok_or_else(|| ApiError::invalid("invalid_priority", "A priority is from -10 to 10."))?;
        let run_at = self.run_at.map(|text| timestamp(&text)).transpose()?;
        Ok(Wanted { kind: self.kind, input, priority, run_at })
    }
}

/// A point in time as RFC 3339 has it, with its offset, to the same in UTC as PostgreSQL reads it.
fn timestamp(text: &str) -> Result<String, ApiError> {
    let invalid = || ApiError::bad("invalid_run_at", "A run_at is an RFC 3339 time with its offset.");
    // The library takes a leap second, an unknown offset, and any letter for the T.
    if text.get(10..11) != Some("T") || text.ends_with("-00:00") || text.contains(":60") {
        return Err(invalid());
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| invalid())?;
    // PostgreSQL knows no year 0; whatever is past runs now.
    let time = time.checked_to_offset(UtcOffset::UTC).ok_or_else(invalid)?;
    Ok(Timestamp(time.max(OffsetDateTime::UNIX_EPOCH)).to_string())
}

/// `POST /api/jobs`: holds the price and queues the job. 202; a replay of its key is 200 with the job as it is now.
pub(crate) async fn create_job(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let key = idempotency_key(request)?;
    let job: CreateJob = body(request)?;
    let account_id = caller.account(job.account_id.as_deref(), &[Scope::Enqueue])?;
    let Wanted { kind, input, priority, run_at } = job.vet()?;
    let job = NewJob { kind: &kind, input: &input, priority, run_at: run_at.as_deref() };
    let enqueued = app.db.enqueue(account_id, job, key, deadline).await?;
    let location = ("location", format!("/api/jobs/{}", enqueued.job.id));
    if enqueued.replayed {
        return respond(200, &enqueued.job, vec![location, as_replayed()]);
    }
    let wake_up = enqueued.wake_after.and_then(|after| Message::for_job(enqueued.job.id, account_id, after));
    app.wake.send(wake_up.as_slice(), deadline).await;
    respond(202, &enqueued.job, vec![location, ("retry-after", "5".into())])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBatch {
    jobs: Vec<Box<RawValue>>,
    account_id: Option<String>,
}

/// `POST /api/jobs:batch`: up to 1,000 jobs, all or nothing, a hold for each. 202; a replay of its key is 200.
pub(crate) async fn create_batch(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let key = idempotency_key(request)?;
    let batch: CreateBatch = large_body(request)?;
    let account_id = caller.account(batch.account_id.as_deref(), &[Scope::Enqueue])?;
    if !(1..=LARGEST_BATCH).contains(&batch.jobs.len()) {
        return Err(ApiError::invalid("invalid_batch", "A batch has 1 to 1000 jobs."));
    }
    let mut jobs = Vec::with_capacity(batch.jobs.len());
    for (number, job) in (1..).zip(batch.jobs) {
        let job = member::<CreateJob>(&job).and_then(|job| match job.account_id {
            Some(_) => Err(ApiError::bad("unknown_field", "The account_id stands beside the jobs.")),
            None => job.vet(),
        });
        jobs.push(job.map_err(|error| error.of_job(number))?);
    }
    let jobs = serde_json::to_string(&jobs).map_err(ApiError::unencodable)?;
    let enqueued = app.db.enqueue_batch(account_id, &jobs, key, deadline).await?;
    let wake_ups =
        enqueued.jobs.iter().filter_map(|job| Message::for_job(job.id, account_id, job.wake_after?));
    app.wake.send(&wake_ups.collect::<Vec<_>>(), deadline).await;
    let page = Page { data: enqueued.jobs, next_cursor: None };
    if enqueued.replayed { respond(200, &page, vec![as_replayed()]) } else { respond(202, &page, Vec::new()) }
}

/// `GET /api/jobs/{id}`: a job of the caller's, or any for a service that may; else 404.
pub(crate) async fn get_job(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = match caller.has(&[Scope::Enqueue, Scope::Operate]) {
        true => None,
        false => Some(caller.account(None, &[])?),
    };
    let id = uuid(id).filter(|parsed| parsed.to_string() == id).ok_or_else(ApiError::not_found)?;
    match app.db.find_job(id, owner, deadline).await? {
        Some(job) => ok(&job),
        None => Err(ApiError::not_found()),
    }
}

/// `GET /api/jobs`: the caller's jobs, newest first, in pages.
pub(crate) async fn list_jobs(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["status", "kind", "limit", "cursor", "account_id"])?;
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
    let filter = JobFilter { status, kind, before };
    let jobs = app.db.list_jobs(account_id, &filter, limit, deadline).await?;
    let more = jobs.last().filter(|_| jobs.len() as i64 == limit);
    let next_cursor = more.map(|job| cursor(job.id.as_bytes(), account_id));
    ok(&Page { data: jobs, next_cursor })
}

/// `GET /api/credits`: what the caller has.
pub(crate) async fn get_credits(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let named = request.query.get("account_id").map(String::as_str);
    let account_id = caller.account(named, &[Scope::Enqueue, Scope::Grant, Scope::Operate])?;
    ok(&app.db.balance(account_id, deadline).await?)
}

/// `GET /api/credits/ledger`: every movement, newest first, in pages.
pub(crate) async fn list_ledger(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["limit", "cursor", "account_id"])?;
    let named = request.query.get("account_id").map(String::as_str);
    let account_id = caller.account(named, &[Scope::Grant, Scope::Operate])?;
    let before = match request.query.get("cursor") {
        Some(cursor) => {
            let id = open_cursor(cursor, account_id)
                .and_then(|bytes| bytes.try_into().ok())
                .map(i64::from_be_bytes);
            Some(id.ok_or_else(bad_cursor)?)
        }
        None => None,
    };
    let limit = page_size(request)?;
    let entries = app.db.ledger(account_id, before, limit, deadline).await?;
    let more = entries.last().filter(|_| entries.len() as i64 == limit);
    let next_cursor = more.map(|entry| cursor(&entry.id.to_be_bytes(), account_id));
    ok(&Page { data: entries, next_cursor })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantCredits {
    account_id: String,
    amount: i64,
    reason: Option<String>,
}

/// `POST /api/credits/grants`: adds credits, once for each `Idempotency-Key`; services with the scope `grant` only.
pub(crate) async fn grant_credits(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    if !caller.has(&[Scope::Grant]) {
        return Err(ApiError::forbidden("Only a service token with the scope grant may."));
    }
    let key = idempotency_key(request)?
        .ok_or_else(|| ApiError::bad("idempotency_key_required", "Send an Idempotency-Key."))?;
    let grant: GrantCredits = body(request)?;
    let account_id = caller.account(Some(&grant.account_id), &[Scope::Grant])?;
    let (entry, replayed) =
        app.db.grant(account_id, grant.amount, key, grant.reason.as_deref(), deadline).await?;
    if replayed {
        return respond(200, &entry, vec![as_replayed()]);
    }
    respond(201, &entry, Vec::new())
}

/// The `Idempotency-Key`: 1 to 128 printable ASCII characters, one of them.
fn idempotency_key(request: &Request) -> Result<Option<&str>, ApiError> {
    let invalid =
        || ApiError::bad("invalid_idempotency_key", "A key has 1 to 128 printable ASCII characters.");
    let key = request.header("idempotency-key").map_err(|_| invalid())?;
    match key {
        // API Gateway joins repeated headers with a comma.
        Some(key) if key.is_empty() || key.len() > 128 || key.contains(',') => Err(invalid()),
        Some(key) if !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => Err(invalid()),
        key => Ok(key),
    }
}

fn is_kind(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(word)
}

fn known_query(request: &Request, known: &[&str]) -> Result<(), ApiError> {
    match request.query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ApiError::bad("unknown_parameter", format!("There is no parameter {name:?}."))),
        None => Ok(()),
    }
}

fn page_size(request: &Request) -> Result<i64, ApiError> {
    let Some(limit) = request.query.get("limit") else { return Ok(PAGE) };
    match limit.parse() {
        Ok(limit) if (1..=LARGEST_PAGE).contains(&limit) => Ok(limit),
        _ => Err(ApiError::bad("invalid_limit", "A limit is a whole number from 1 to 100.")),
    }
}

fn bad_cursor() -> ApiError {
    ApiError::bad("invalid_cursor", "Send a next_cursor as it was given.")
}

/// A cursor: where a page ended, tied to the account so that no other's is taken.
fn cursor(position: &[u8], account_id: Uuid) -> String {
    let mut bytes = position.to_vec();
    bytes.extend_from_slice(&tie(position, account_id));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open_cursor(cursor: &str, account_id: Uuid) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (position, tied) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    (tied == tie(position, account_id)).then(|| position.to_vec())
}

fn tie(position: &[u8], account_id: Uuid) -> [u8; 8] {
    let digest = Sha256::new().chain_update(account_id.as_bytes()).chain_update(position).finalize();
    std::array::from_fn(|i| digest[i])
}
