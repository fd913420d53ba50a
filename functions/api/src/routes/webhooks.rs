//! Who is told of jobs: an account's webhook and its secret, the webhooks of jobs, and what became of each message.

use std::{collections::BTreeMap, time::Duration};

use http::Uri;
use serde::{Deserialize, Serialize};
use shared::{
    db::{jobs::JobWebhook, webhooks::AccountWebhook},
    domain::{Deadline, Timestamp, json::distinct_at_most},
    http_client::{Allow, HttpError, vet_host, vet_url},
    signing::account_secret,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    LARGEST_PAGE, Page, account, bad_cursor, cursor, known_query, no_job, ok, open_cursor, owner, page_size,
    path_id,
};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
    json::{body, no_body},
};
#[cfg(feature = "openapi")]
use {
    crate::openapi::{params::*, problems::*},
    shared::db::webhooks::DeliveryShown,
};

/// The longest URL, in characters.
const LONGEST_URL: usize = 2_000;
/// What there is to be told of, and what is told unless asked otherwise: the last three.
const EVENTS: [&str; 4] = ["job.running", "job.succeeded", "job.failed", "job.canceled"];
/// How long the hosts of one request are looked up.
const LOOK_UP_BUDGET: Duration = Duration::from_secs(1);
/// Hosts of one request: each is a look-up.
const MOST_HOSTS: usize = 10;

/// Who reads where an account is told, and its secret; and who says so for it.
const READERS: &[Scope] = &[Scope::Enqueue, Scope::Operate];
const OPERATORS: &[Scope] = &[Scope::Operate];

/// A webhook, as it is asked for.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct WantedWebhook {
    /// Where to: HTTPS, at a public address, without user information or fragment.
    #[cfg_attr(feature = "openapi", schema(max_length = 2000, pattern = "^https?://[!-\"$-~]+$"))]
    url: String,
    /// Of what; of every end of a job if it is left out.
    #[serde(default, deserialize_with = "distinct_at_most::<4, _>")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::webhook_events))]
    events: Option<Vec<String>>,
}

impl WantedWebhook {
    /// The webhook, if nothing is wrong with it in itself; where its host is, `vet_hosts` looks up.
    /// `place` is where it stands in the body.
    pub(super) fn vet(self, place: &str, allow: Allow) -> Result<JobWebhook, ApiError> {
        let url = self.url.as_str();
        let flaw = if url.len() > LONGEST_URL {
            Some("A webhook's URL has at most 2,000 characters.")
        } else if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            Some("A webhook's URL has printable ASCII characters alone: encode the others.")
        } else if url.contains('#') {
            Some("A webhook's URL has no fragment: it would never be sent.")
        } else if !url.starts_with("https://") && !url.starts_with("http://") {
            Some("A webhook's URL begins with https://.")
        } else {
            None
        };
        let vetted = match flaw {
            Some(detail) => Err(refused(detail)),
            None => vet_url(url, allow).map_err(|error| forbidden(&error)),
        };
        vetted.map_err(|error| error.at(&format!("{place}/url")))?;
        let events = self.events.unwrap_or_else(|| EVENTS[1..].iter().map(ToString::to_string).collect());
        if events.is_empty() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
            let detail = format!("The events of a webhook are some of {}.", EVENTS.join(", "));
            return Err(refused(detail).at(&format!("{place}/events")).allowed(EVENTS));
        }
        Ok(JobWebhook { url: self.url, events: Some(events) })
    }
}

fn refused(detail: impl Into<String>) -> ApiError {
    ApiError::invalid("invalid_webhook", detail)
}

fn forbidden(error: &HttpError) -> ApiError {
    refused(format!("A webhook cannot be there: {error}."))
}

/// Refuses webhooks that nothing can be sent to: we sign nothing, or a host is at an address that is not public now. One that
/// does not resolve, or not within a second, is taken: its addresses are vetted at each sending, too. What `key` bought before
/// is no matter of today.
pub(super) async fn vet_hosts(
    app: &App,
    account_id: Uuid,
    webhooks: &[&JobWebhook],
    key: Option<&str>,
    deadline: Deadline,
) -> Result<(), ApiError> {
    if webhooks.is_empty() {
        return Ok(());
    }
    let found = match master(app, deadline).await? {
        Some(_) => look_up(app, webhooks, deadline).await,
        None => Err(not_offered()),
    };
    match (found, key) {
        (Err(_), Some(key)) if app.db.is_keyed(account_id, key, deadline).await? => Ok(()),
        (found, _) => found,
    }
}

async fn look_up(app: &App, webhooks: &[&JobWebhook], deadline: Deadline) -> Result<(), ApiError> {
    if app.allow == Allow::Anything {
        return Ok(());
    }
    let host = |url: &str| url.parse::<Uri>().ok()?.host().map(str::to_ascii_lowercase);
    let named = webhooks.iter().map(|webhook| (host(&webhook.url), webhook.url.clone()));
    let hosts: BTreeMap<_, _> = named.collect();
    if hosts.len() > MOST_HOSTS {
        return Err(refused("The webhooks of a batch are at ten hosts at most."));
    }
    let deadline = deadline.within(LOOK_UP_BUDGET);
    let mut found = JoinSet::new();
    for url in hosts.into_values() {
        found.spawn(async move { vet_host(&url, deadline).await });
    }
    let found = found.join_all().await;
    found.into_iter().collect::<Result<(), _>>().map_err(|error| forbidden(&error))
}

/// The secret that all others are derived from, if there is one.
async fn master(app: &App, deadline: Deadline) -> Result<Option<String>, ApiError> {
    let secrets = app.secrets.get(deadline).await.map_err(|error| {
        tracing::error!(error = %error, "secrets unavailable");
        ApiError::auth_unavailable()
    })?;
    Ok(secrets.signing_secret)
}

fn not_offered() -> ApiError {
    ApiError::invalid("webhooks_not_offered", "Nobody is told of jobs here: there is no SIGNING_SECRET.")
}

/// An account's webhook, as its owner sees it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct WebhookShown {
    /// The account.
    account_id: Uuid,
    /// Where messages are sent; null if there is no webhook.
    url: Option<String>,
    /// The events that it is told of.
    events: Vec<String>,
    /// The secret that signs, for the account's webhook and its jobs' own; null if the operator has set none up.
    secret: Option<String>,
    /// While a rotation lasts: the secret before, which signs, too.
    previous_secret: Option<String>,
    /// When that rotation ends.
    previous_secret_until: Option<Timestamp>,
    /// When the secret was changed last.
    rotated_at: Option<Timestamp>,
    /// When it answered 410 (Gone): it is told nothing until it is set again.
    disabled_at: Option<Timestamp>,
}

impl WebhookShown {
    fn of(account_id: Uuid, webhook: Option<AccountWebhook>, master: Option<&str>) -> Self {
        let version = webhook.as_ref().map_or(1, |webhook| webhook.secret_version);
        let until = webhook.as_ref().and_then(|webhook| webhook.previous_until);
        let secret = |version| master.map(|master| account_secret(master, account_id, version));
        let (rotated_at, disabled_at) =
            webhook.as_ref().map_or((None, None), |webhook| (webhook.rotated_at, webhook.disabled_at));
        let place = webhook.and_then(|webhook| Some((webhook.url?, webhook.events)));
        let (url, events) = place.map_or((None, Vec::new()), |(url, events)| (Some(url), events));
        let previous_secret = until.and_then(|_| secret(version.saturating_sub(1)));
        let (secret, previous_secret_until) = (secret(version), until);
        Self {
            account_id,
            url,
            events,
            secret,
            previous_secret,
            previous_secret_until,
            rotated_at,
            disabled_at,
        }
    }
}

/// Show the webhook of an account.
///
/// And the secret that signs its messages, which the account has before there is a webhook.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/webhook", tag = "webhooks", params(OfAccount),
    responses(
        (status = 200, description = "Where the account is told of its jobs.", body = WebhookShown),
        Problems<(Caller, Account, Queried)>)
))]
pub(crate) async fn get_webhook(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let account_id = account(&caller, request, OPERATORS)?;
    let master = master(app, deadline).await?;
    let webhook = app.db.webhook(account_id, deadline).await?;
    ok(&WebhookShown::of(account_id, webhook, master.as_deref()))
}

/// Set the webhook of an account.
///
/// One that was disabled is enabled again.
#[cfg_attr(feature = "openapi", utoipa::path(
    put, path = "/api/webhook", tag = "webhooks", params(OfAccount), request_body = WantedWebhook,
    responses(
        (status = 200, description = "It is told there from now on.", body = WebhookShown),
        Problems<(Caller, Account, Open, Queried, Body, Telling)>)
))]
pub(crate) async fn set_webhook(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let account_id = account(&caller, request, OPERATORS)?;
    let webhook = body::<WantedWebhook>(request)?.vet("", app.allow)?;
    vet_hosts(app, account_id, &[&webhook], None, deadline).await?;
    // Before anything is written: no answer then lacks it.
    let master = master(app, deadline).await?;
    let JobWebhook { url, events } = &webhook;
    let webhook = app.db.set_webhook(account_id, Some(url), events.as_deref(), deadline).await?;
    ok(&WebhookShown::of(account_id, Some(webhook), master.as_deref()))
}

/// Delete the webhook of an account.
///
/// Jobs with a webhook of their own keep it.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/api/webhook", tag = "webhooks", params(OfAccount),
    responses((status = 204, description = "It is deleted."), Problems<(Caller, Account, Open, Queried)>)
))]
pub(crate) async fn delete_webhook(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    let account_id = account(&caller, request, OPERATORS)?;
    app.db.set_webhook(account_id, None, None, deadline).await?;
    Ok(Response { status: 204, headers: Vec::new(), body: String::new() })
}

/// Rotate the secret of an account's webhooks.
///
/// The last secret signs, too, for a day; one before that does not any more.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/webhook/rotate-secret", tag = "webhooks", params(OfAccount),
    responses(
        (status = 200, description = "Both secrets.", body = WebhookShown),
        Problems<(Caller, Account, Open, Queried, Bare, Offered)>)
))]
pub(crate) async fn rotate_secret(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["account_id"])?;
    no_body(request)?;
    let account_id = account(&caller, request, OPERATORS)?;
    let master = master(app, deadline).await?.ok_or_else(not_offered)?;
    let webhook = app.db.rotate_webhook_secret(account_id, deadline).await?;
    ok(&WebhookShown::of(account_id, Some(webhook), Some(&master)))
}

/// List the webhook messages of a job, oldest first.
///
/// Those that were delivered, those that were given up, and those that are still to be sent.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/jobs/{id}/deliveries", tag = "webhooks", params(JobId, Paging),
    responses(
        (status = 200, description = "A page of messages.", body = Page<DeliveryShown>),
        Problems<(Caller, Scoped, Found, Paged)>)
))]
pub(crate) async fn list_deliveries(
    app: &App,
    request: &Request,
    id: &str,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    let owner = owner(&caller, READERS)?;
    let id = path_id(id)?;
    known_query(request, &["limit", "cursor"])?;
    let limit = page_size(request, LARGEST_PAGE)?;
    let after = request.query.get("cursor").map(|text| {
        open_cursor(text, id).and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(bad_cursor)
    });
    let deliveries = app.db.deliveries(id, owner, after.transpose()?, limit, deadline).await?;
    // None, or none yet.
    if deliveries.is_empty() && app.db.is_final(id, owner, deadline).await?.is_none() {
        return Err(no_job(app, id, deadline).await);
    }
    let more = deliveries.last().filter(|_| deliveries.len() as i64 == limit);
    let next_cursor = more.map(|delivery| cursor(delivery.id.as_bytes(), id));
    ok(&Page { data: deliveries, next_cursor, limit })
}
