//! The endpoints. Each turns a request into typed values, makes one call to the database, and answers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};
use shared::{
    db::jobs::JobFilter,
    domain::{Deadline, Status},
};
use uuid::Uuid;

use crate::{
    App,
    auth::{Scope, caller, uuid},
    error::ApiError,
    event::{Request, Response},
    json::{MAX_INPUT_BYTES, body},
};

/// Entries of a page unless asked otherwise, and at most.
const PAGE: i64 = 20;
const LARGEST_PAGE: i64 = 100;

fn ok(body: &impl serde::Serialize) -> Result<Response, ApiError> {
    respond(200, body, Vec::new())
}

fn respond(
    status: u16,
    body: &impl serde::Serialize,
    headers: Vec<(&'static str, String)>,
) -> Result<Response, ApiError> {
    let body = serde_json::to_string(body).map_err(|error| ApiError::bad("internal", error.to_string()))?;
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
    input: Option<Box<RawValue>>,
    account_id: Option<String>,
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
    if !is_kind(&job.kind) {
        return Err(ApiError::invalid("unknown_kind", "No such kind is offered."));
    }
    let input = job
        .input
        .unwrap_or_else(|| RawValue::from_string("{}".into()).unwrap_or_else(|_| RawValue::NULL.to_owned()));
    if input.get().len() > MAX_INPUT_BYTES {
        return Err(ApiError::too_large("An input has at most 64 KiB of JSON."));
    }
    let enqueued = app.db.enqueue(account_id, &job.kind, &input, key, deadline).await?;
    let location = ("location", format!("/api/jobs/{}", enqueued.job.id));
    if enqueued.replayed {
        return respond(200, &enqueued.job, vec![location, ("idempotent-replayed", "true".into())]);
    }
    respond(202, &enqueued.job, vec![location, ("retry-after", "5".into())])
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
    let limit = page_size(request)?;
    let filter = JobFilter { status, kind, before };
    let jobs = app.db.list_jobs(account_id, &filter, limit, deadline).await?;
    let more = jobs.last().filter(|_| jobs.len() as i64 == limit);
    let next_cursor = more.map(|job| cursor(job.id.as_bytes(), account_id));
    ok(&json!({ "data": jobs, "next_cursor": next_cursor }))
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
    ok(&json!({ "data": entries, "next_cursor": next_cursor }))
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
        return respond(200, &entry, vec![("idempotent-replayed", "true".into())]);
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
