//! An account as a whole, for the team's services with the scope `operate`: erased, or written out (ADR 21).

use shared::{db::accounts::ExportPlace, domain::Deadline};
use uuid::Uuid;

use super::{bad_cursor, cursor, known_query, ok, open_cursor, respond};
use crate::{
    App,
    auth::{Scope, caller, uuid},
    error::ApiError,
    event::{Request, Response},
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::accounts::Erasure,
};

/// Erase an account.
///
/// For services with the scope `operate`. It is closed at once, for good: it buys nothing, is granted nothing, and nobody reads its
/// jobs. What is unfinished is canceled; inputs, outputs, metadata, tags, webhooks, error texts and idempotency keys are cleared by
/// the next ticks. Its entries stay: they are the team's books, under an id that names nobody once whoever gave it out has
/// forgotten it. Asked again, it answers how far that is.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/accounts/{account_id}/erase", tag = "accounts", params(AccountId),
    responses(
        (status = 202, description = "It is closed, and is being erased.", body = Erasure),
        (status = 200, description = "Nothing of its payloads is left.", body = Erasure),
        Problems<(Caller, Scoped, There)>)
))]
pub(crate) async fn erase_account(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let account_id = operated(app, request, id, deadline).await?;
    let erasure = app.db.erase_account(account_id, deadline).await?;
    respond(if erasure.done_at.is_some() { 200 } else { 202 }, &erasure, Vec::new())
}

/// Show the erasure of an account.
///
/// For services with the scope `operate`. 404 if nobody asked for one.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/accounts/{account_id}/erasure", tag = "accounts", params(AccountId),
    responses(
        (status = 200, description = "How far it is.", body = Erasure),
        Problems<(Caller, Scoped, There)>)
))]
pub(crate) async fn get_erasure(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let account_id = operated(app, request, id, deadline).await?;
    let erasure = app.db.erasure(account_id, deadline).await?;
    ok(&erasure.ok_or_else(ApiError::not_found)?)
}

/// Export an account, as JSON lines, in pages.
///
/// For services with the scope `operate`. Each line has a `type`: `account`, `job`, its `run`s and `message`s, `key`, or `entry`. The
/// last line of a page is a `cursor` with the `next_cursor` of the next page, or, of the last page, `end`. Of an account that is
/// erased, itself and its entries.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/accounts/{account_id}/export", tag = "accounts", params(AccountId, ExportWanted),
    responses(
        (status = 200, description = "A page of lines.", body = String, content_type = "application/jsonl"),
        Problems<(Caller, Scoped, There, Queried, Continued)>)
))]
pub(crate) async fn export_account(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let account_id = operated(app, request, id, deadline).await?;
    known_query(request, &["cursor"])?;
    let place = match request.query.get("cursor") {
        None => ExportPlace::default(),
        Some(cursor) => open_cursor(cursor, account_id)
            .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
            .ok_or_else(bad_cursor)?,
    };
    let page = app.db.export(account_id, place, deadline).await?;
    let body = page.text(|place| cursor(place.to_string().as_bytes(), account_id));
    let headers = vec![("content-type", "application/jsonl".to_owned())];
    Ok(Response { status: 200, headers, body })
}

/// The account of a path, if the caller operates them.
async fn operated(app: &App, request: &Request, id: &str, deadline: Deadline) -> Result<Uuid, ApiError> {
    let caller = caller(app, request, deadline).await?;
    if !caller.has(&[Scope::Operate]) {
        return Err(ApiError::forbidden("Only a service token with the scope operate may."));
    }
    uuid(id).ok_or_else(ApiError::not_found)
}
