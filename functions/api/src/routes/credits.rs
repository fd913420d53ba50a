//! What an account has, every movement of it, and grants.

use serde::Deserialize;
use shared::domain::Deadline;

use super::{
    Page, as_replayed, bad_cursor, cursor, idempotency_key, known_query, ok, open_cursor, page_size, respond,
};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
    json::body,
};

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
