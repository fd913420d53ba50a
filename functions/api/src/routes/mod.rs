//! The endpoints. Each turns a request into typed values, makes one call to the database, and answers. `jobs` buys and
//! shows, `kinds` says what is offered, `life` cancels, retries and redrives, `wait` waits for a job, `webhooks` says who is told of jobs, `credits` grants and
//! accounts, `statement` proves it, `accounts` erases them and writes them out; what they share is here.

pub(crate) mod accounts;
pub(crate) mod callbacks;
pub(crate) mod credits;
pub(crate) mod jobs;
pub(crate) mod kinds;
pub(crate) mod life;
pub(crate) mod statement;
pub(crate) mod wait;
pub(crate) mod webhooks;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::{
    db::jobs::Job,
    domain::{Deadline, Status},
};
use time::OffsetDateTime;
use uuid::Uuid;

#[cfg(feature = "openapi")]
use crate::openapi::problems::{Database, Problems, Queried};
use crate::{
    App,
    auth::{Caller, Scope, uuid},
    error::ApiError,
    event::{Request, Response},
    headers::whole,
    json::short,
};

/// Entries of a page unless asked otherwise, and at most.
const PAGE: i64 = 20;
const LARGEST_PAGE: i64 = 100;

/// Entries, and where the next page begins.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Page<T> {
    /// The entries.
    pub(super) data: Vec<T>,
    /// The `cursor` of the next page; null after the last.
    pub(super) next_cursor: Option<String>,
    /// How many entries a page has at most: as many as were asked for, or as many as there may be.
    pub(super) limit: i64,
}

pub(super) fn as_replayed() -> (&'static str, String) {
    ("idempotent-replayed", "true".into())
}

pub(super) fn ok(body: &impl Serialize) -> Result<Response, ApiError> {
    respond(200, body, Vec::new())
}

pub(super) fn respond(
    status: u16,
    body: &impl Serialize,
    headers: Vec<(&'static str, String)>,
) -> Result<Response, ApiError> {
    let body = serde_json::to_string(body).map_err(ApiError::unencodable)?;
    Ok(Response { status, headers, body })
}

/// The headers of an answer, and `Retry-After` with them if it shows an unfinished job.
pub(super) fn headers_of(job: &Job, headers: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    let retry_after = (!job.status.is_final()).then(|| ("retry-after", retry_after(job).to_string()));
    headers.into_iter().chain(retry_after).collect()
}

/// In how many seconds it is worth looking at an unfinished job again: a hint, so that clocks that differ do no harm. Not
/// before it is due, but every minute, since it may be canceled meanwhile; then every two seconds, which is how often its
/// worker says how far it is.
fn retry_after(job: &Job) -> i64 {
    let until_due = (job.run_at.0 - OffsetDateTime::now_utc()).as_seconds_f64().ceil() as i64;
    if job.status == Status::Running || until_due <= 0 { 2 } else { until_due.min(60) }
}

/// How the API is.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// For how many seconds the oldest due job has been waiting; 0 if none is.
    oldest_due_seconds: u64,
    /// What a tick should have done beside the jobs, and could not, such as `retention`; or `audit`, which found money that is not as it
    /// should be: `punchcard doctor` says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    upkeep_waits: Option<Vec<String>>,
}

/// Show whether the API reaches its database.
///
/// Needs no token. `ok` is whether the database answers; how far behind the jobs are, the other members say.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/health", tag = "operation", security(()),
    responses((status = 200, description = "The API, and its database, are there.", body = Health), Problems<(Database, Queried)>)
))]
pub(crate) async fn health(app: &App, request: &Request, deadline: Deadline) -> Result<Response, ApiError> {
    known_query(request, &[])?;
    let (oldest, upkeep_waits) = app.db.health(deadline.within(std::time::Duration::from_secs(5))).await?;
    let oldest_due_seconds = oldest.map_or(0, |waiting| waiting.as_secs());
    let upkeep_waits = Some(upkeep_waits).filter(|tasks| !tasks.is_empty());
    ok(&Health { status: "ok", oldest_due_seconds, upkeep_waits })
}

/// The document that describes this API, as `cargo xtask openapi` wrote it.
const DOCUMENT: &str = include_str!("../../openapi.json");

/// Show this document, as OpenAPI 3.1.
///
/// Needs no token.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/openapi.json", tag = "operation", security(()),
    responses((status = 200, description = "This document.", body = serde_json::Value, headers(
        ("cache-control" = String, description = "How long it may be kept."))), Problems<Queried>)
))]
pub(crate) async fn openapi(_: &App, request: &Request, _: Deadline) -> Result<Response, ApiError> {
    known_query(request, &[])?;
    let headers = vec![("cache-control", "public, max-age=300".to_owned())];
    Ok(Response { status: 200, headers, body: DOCUMENT.to_owned() })
}

/// The `Idempotency-Key`: 1 to 128 printable ASCII characters, one of them. One pair of quotes around it is no part of it: the
/// IETF's draft (draft-ietf-httpapi-idempotency-key-header) sends a structured string (RFC 8941 §3.3.3), others the bare text.
pub(super) fn idempotency_key(request: &Request) -> Result<Option<&str>, ApiError> {
    let invalid = || {
        let detail = "A key has 1 to 128 printable ASCII characters without a comma, perhaps in quotes; in quotes, none of them is \
                      a quote or a backslash.";
        ApiError::bad("invalid_idempotency_key", detail).of_header("Idempotency-Key")
    };
    let Some(sent) = request.header("idempotency-key").map_err(|_| invalid())? else { return Ok(None) };
    // What would be escaped within quotes is not taken there: it would be another key than the same without them.
    let (key, escaped) = match sent.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(key) => (key, key.contains(['"', '\\'])),
        None => (sent, sent.starts_with('"') || sent.ends_with('"')),
    };
    // API Gateway joins repeated headers with a comma.
    let is_key = (1..=128).contains(&key.len())
        && key.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b',')
        && key.trim() == key;
    (is_key && !escaped).then_some(Some(key)).ok_or_else(invalid)
}

pub(super) fn is_kind(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(word)
}

pub(super) fn known_query(request: &Request, known: &[&str]) -> Result<(), ApiError> {
    match request.query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            let name = short(name);
            let error = ApiError::bad("unknown_parameter", format!("There is no parameter {name:?}."));
            Err(error.of_parameter(&name).allowed(known.iter().copied()))
        }
        None => Ok(()),
    }
}

/// The entries of a page: 20 unless asked otherwise, and no more than `largest`, however many are asked for.
pub(super) fn page_size(request: &Request, largest: i64) -> Result<i64, ApiError> {
    let Some(limit) = request.query.get("limit") else { return Ok(PAGE.min(largest)) };
    match whole(limit).map(i64::try_from) {
        Some(Ok(limit)) if limit > 0 => Ok(limit.min(largest)),
        _ => {
            Err(ApiError::bad("invalid_limit", "A limit is a whole number from 1 on.").of_parameter("limit"))
        }
    }
}

/// Which page: its size, and the number behind which it begins, of one of the lists that belong to `of`.
pub(super) fn numbered_page(request: &Request, list: &str, of: Uuid) -> Result<(i64, i64), ApiError> {
    let Some(cursor) = request.query.get("cursor") else { return Ok((page_size(request, LARGEST_PAGE)?, 0)) };
    let opened = open_cursor(cursor, of);
    let number = opened.as_deref().and_then(|bytes| bytes.strip_prefix(list.as_bytes())?.try_into().ok());
    Ok((page_size(request, LARGEST_PAGE)?, number.map(i64::from_be_bytes).ok_or_else(bad_cursor)?))
}

/// The cursor of a page that begins behind that number.
pub(super) fn numbered_cursor(list: &str, number: i64, of: Uuid) -> String {
    cursor(&[list.as_bytes(), &number.to_be_bytes()].concat(), of)
}

/// `?validate_only=true`: everything is checked, and nothing is done.
pub(super) fn validate_only(request: &Request) -> Result<bool, ApiError> {
    match request.query.get("validate_only").map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => {
            let error = ApiError::bad("invalid_validate_only", "validate_only is true or false.");
            Err(error.of_parameter("validate_only").allowed(["true", "false"]))
        }
    }
}

/// Whose: the caller's own account, or that which a service names by `?account_id=`.
pub(super) fn account(caller: &Caller, request: &Request, scopes: &[Scope]) -> Result<Uuid, ApiError> {
    caller.account(request.query.get("account_id").map(String::as_str), scopes)
}

pub(super) fn bad_cursor() -> ApiError {
    ApiError::bad("invalid_cursor", "Send a next_cursor as it was given.").of_parameter("cursor")
}

/// A cursor: where a page ended, tied to the account so that no other's is taken.
pub(super) fn cursor(position: &[u8], account_id: Uuid) -> String {
    let mut bytes = position.to_vec();
    bytes.extend_from_slice(&tie(position, account_id));
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn open_cursor(cursor: &str, account_id: Uuid) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (position, tied) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    (tied == tie(position, account_id)).then(|| position.to_vec())
}

fn tie(position: &[u8], account_id: Uuid) -> [u8; 8] {
    let digest = Sha256::new().chain_update(account_id.as_bytes()).chain_update(position).finalize();
    std::array::from_fn(|i| digest[i])
}

/// The id in a path: 404 if it is none.
pub(super) fn path_id(id: &str) -> Result<Uuid, ApiError> {
    uuid(id).filter(|parsed| parsed.to_string() == id).ok_or_else(ApiError::not_found)
}

/// Of a job that is not there: 410 if it is past its retention, or could be by its id; else 404.
pub(super) async fn no_job(app: &App, id: Uuid, deadline: Deadline) -> ApiError {
    app.db.refuse_gone(id, deadline).await.err().map_or_else(ApiError::not_found, ApiError::from)
}

/// Whose jobs the caller may act on: `None` is everybody's, for a service with one of the scopes.
pub(super) fn owner(caller: &Caller, scopes: &[Scope]) -> Result<Option<Uuid>, ApiError> {
    if caller.has(scopes) { Ok(None) } else { caller.account(None, &[]).map(Some) }
}
