//! What an account has, every movement of it, and grants.

use serde::Deserialize;
use shared::{db::credits::Place, domain::Deadline};
use uuid::Uuid;

use super::{
    LARGEST_PAGE, Page, account, as_replayed, bad_cursor, cursor, idempotency_key, jobs::timestamp,
    known_query, ok, open_cursor, page_size, respond,
};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
    json::body,
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::credits::{Credits, Entry},
};

/// Show the balance of an account.
///
/// What is free, what is held for unfinished jobs, and what lapses when.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/credits", tag = "credits", params(OfAccount),
    responses(
        (status = 200, description = "What is free to spend, what is held, and what of it lapses.", body = Credits),
        Problems<(Caller, Account, Queried)>)
))]
pub(crate) async fn get_credits(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let account_id = account(&caller, request, &[Scope::Enqueue, Scope::Grant, Scope::Operate])?;
    ok(&app.db.balance(account_id, deadline).await?)
}

/// List the ledger of an account, newest first.
///
/// They are in the order of their time. Where many jobs were free, a page may have fewer entries than its limit, even none: as long as
/// there is a `next_cursor`, there may be more.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/credits/ledger", tag = "credits", params(Paging, OfAccount),
    responses(
        (status = 200, description = "A page of entries.", body = Page<Entry>),
        Problems<(Caller, Account, Paged)>)
))]
pub(crate) async fn list_ledger(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["limit", "cursor", "account_id"])?;
    let account_id = account(&caller, request, &[Scope::Grant, Scope::Operate])?;
    let before = match request.query.get("cursor") {
        Some(cursor) => {
            let place = open_cursor(cursor, account_id).and_then(|bytes| place(&bytes));
            Some(place.ok_or_else(bad_cursor)?)
        }
        None => None,
    };
    let limit = page_size(request, LARGEST_PAGE)?;
    let page = app.db.ledger(account_id, before, limit, deadline).await?;
    let next_cursor = page.next.map(|place| {
        let bytes = [&place.at.to_be_bytes()[..], place.key.as_bytes(), &place.part.to_be_bytes()].concat();
        cursor(&bytes, account_id)
    });
    ok(&Page { data: page.entries, next_cursor, limit })
}

/// The last microsecond that a UUID tells, by 48 bits of milliseconds: an old system's may tell any.
pub(super) const LAST_MICROSECOND: i64 = ((1 << 48) - 1) * 1_000 + 999;

/// What a cursor of the ledger says.
fn place(bytes: &[u8]) -> Option<Place> {
    let (at, rest) = bytes.split_first_chunk()?;
    let (key, part) = rest.split_first_chunk()?;
    Some(Place {
        // Microseconds: of a time that an entry can have.
        at: Some(i64::from_be_bytes(*at)).filter(|at| (0..=LAST_MICROSECOND).contains(at))?,
        key: Uuid::from_bytes(*key),
        part: i16::from_be_bytes(part.try_into().ok()?),
    })
}

/// Credits to add.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct GrantCredits {
    /// How many.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000000000000000i64))]
    amount: i64,
    /// Why, for the ledger.
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    reason: Option<String>,
    /// When what is left of them lapses, within ten years (RFC 3339); never, if it is left out. What lapses first is spent first.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    expires_at: Option<String>,
}

/// Grant credits.
///
/// For services with the scope `grant`.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/credits/grants", tag = "credits", params(RequiredIdempotencyKey, NamedAccount), request_body = GrantCredits,
    responses(
        (status = 201, description = "Granted.", body = Entry),
        (status = 200, description = "The key had granted this before.", body = Entry, headers(
            ("idempotent-replayed" = String, description = "`true`."))),
        Problems<(Caller, Account, Key, Body, Granting, Queried)>)
))]
pub(crate) async fn grant_credits(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    if !caller.has(&[Scope::Grant]) {
        return Err(ApiError::forbidden("Only a service token with the scope grant may."));
    }
    known_query(request, &["account_id"])?;
    let key = idempotency_key(request)?.ok_or_else(|| {
        ApiError::bad("idempotency_key_required", "Send an Idempotency-Key.").of_header("Idempotency-Key")
    })?;
    let grant: GrantCredits = body(request)?;
    let account_id = account(&caller, request, &[Scope::Grant])?;
    let expires_at = grant.expires_at.map(|text| timestamp("expires_at", &text)).transpose()?;
    let (reason, expires_at) = (grant.reason.as_deref(), expires_at.as_deref());
    let (entry, replayed) = app
        .db
        .grant(account_id, grant.amount, key, reason, expires_at, deadline)
        .await
        .map_err(|error| ApiError::from(error).in_body())?;
    if replayed {
        return respond(200, &entry, vec![as_replayed()]);
    }
    respond(201, &entry, Vec::new())
}
