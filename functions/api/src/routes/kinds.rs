//! What is offered: the kinds of jobs, at which price, and on which terms.

use serde::Serialize;
use shared::{
    db::kinds::{Charge, Kind},
    domain::Deadline,
};
use uuid::Uuid;

use super::{LARGEST_PAGE, Page, bad_cursor, cursor, known_query, ok, open_cursor, page_size};
#[cfg(feature = "openapi")]
use crate::openapi::{params::*, problems::*};
use crate::{
    App,
    auth::caller,
    error::ApiError,
    event::{Request, Response},
};

/// A kind of job that is offered.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct OfferedKind {
    /// Its name.
    name: String,
    /// What is held for a job, in credits.
    price: i64,
    /// Whether the price is the most that a job may cost, and what it used is captured.
    metered: bool,
    /// What becomes of the price when a job is canceled that runs, or has run: `release`, `capture`, or `refuse`, which refuses
    /// to cancel it.
    on_cancel: Charge,
    /// What becomes of it when a job fails and its input is to blame: `release` or `capture`.
    on_input_error: Charge,
    /// The highest priority that a caller may give a job, -10 to 10.
    max_priority: i16,
    /// How often a job is tried, at most.
    max_attempts: i32,
    /// How long one attempt may take, in seconds.
    timeout_seconds: i32,
    /// How long a job may take in all, in seconds, from when it is due; then it fails.
    life_seconds: i32,
}

impl OfferedKind {
    fn of(kind: Kind) -> Self {
        Self {
            name: kind.name,
            price: kind.price,
            metered: kind.metered,
            on_cancel: kind.on_cancel,
            on_input_error: kind.on_input_error,
            max_priority: kind.max_priority,
            max_attempts: kind.max_attempts,
            timeout_seconds: kind.timeout_seconds,
            life_seconds: kind.life_seconds,
        }
    }
}

/// List the kinds of jobs that are offered, by name.
///
/// With their prices and terms. For everybody who may call.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/kinds", tag = "jobs", params(Paging),
    responses(
        (status = 200, description = "A page of kinds.", body = Page<OfferedKind>),
        Problems<(Caller, Paged)>)
))]
pub(crate) async fn list_kinds(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    caller(app, request, deadline).await?;
    known_query(request, &["limit", "cursor"])?;
    let limit = page_size(request, LARGEST_PAGE)?;
    let after = match request.query.get("cursor") {
        Some(text) => {
            let name = open_cursor(text, Uuid::nil()).and_then(|bytes| String::from_utf8(bytes).ok());
            name.ok_or_else(bad_cursor)?
        }
        None => String::new(),
    };
    let mut kinds = app.db.list_kinds(deadline).await?;
    kinds.retain(|kind| !kind.retired && kind.name > after);
    kinds.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let more = i64::try_from(kinds.len()).is_ok_and(|there| there > limit);
    let data = kinds.into_iter().take(usize::try_from(limit).unwrap_or(0)).map(OfferedKind::of);
    let data: Vec<_> = data.collect();
    let next_cursor = data.last().filter(|_| more).map(|kind| cursor(kind.name.as_bytes(), Uuid::nil()));
    ok(&Page { data, next_cursor, limit })
}
