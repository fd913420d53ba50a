//! The HTTP API. `event` decodes what API Gateway sends, `router` names the endpoints, `auth` says who is calling,
//! `error` alone knows error statuses.

mod auth;
mod error;
mod event;
mod headers;
mod json;
#[cfg(feature = "openapi")]
pub mod openapi;
mod router;
mod routes;

use std::{sync::Arc, time::Duration};

use lambda_http::{Error, lambda_runtime::LambdaEvent};
use shared::{
    config::Config, db::Db, domain::Deadline, http_client::Allow, secrets::SecretStore, wake::Wake,
};

use auth::Authenticator;
pub use event::{Answer, Event};
pub use router::{ROUTES, route_of};

/// API Gateway gives up after 30 s: an answer must be there before.
const LONGEST: Duration = Duration::from_secs(25);
/// Of a request that waits for a job: the longest wait, and time to read the job afterwards.
const LONGEST_WITH_WAIT: Duration = Duration::from_millis(27_500);
/// Kept free to answer in.
const MARGIN: Duration = Duration::from_millis(500);

/// The API of one execution environment: built once, used for every request.
pub struct App {
    pub(crate) db: Db,
    pub(crate) auth: Authenticator,
    pub(crate) wake: Wake,
    pub(crate) secrets: Arc<SecretStore>,
    /// How long a caller may wait for a job.
    pub(crate) longest_wait: Duration,
    /// Where webhooks may point to.
    pub(crate) allow: Allow,
    /// What the API's paths stand behind where it is reached from outside; `/v1` of `https://jobs.example.com/v1`.
    base: String,
}

impl App {
    /// An API that has not connected to anything yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let secrets = Arc::new(SecretStore::new(config.secrets));
        Self {
            db: Db::with_connections(Arc::clone(&secrets), config.connections),
            auth: Authenticator::new(config.auth, Arc::clone(&secrets)),
            wake: Wake::new(config.wake_queue_url),
            secrets,
            longest_wait: config.longest_wait,
            base: config.worker.public_url.as_deref().map(path_of).unwrap_or_default(),
            allow: if config.worker.allow_private_targets { Allow::Anything } else { Allow::PublicHttps },
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Only when the event is no HTTP request at all: the invocation fails, and nobody takes it for a success.
    pub async fn handle(&self, event: LambdaEvent<Event>) -> Result<Answer, Error> {
        let (event, context) = event.into_parts();
        let response = match event::decode(event, &self.base)? {
            Ok(request) => {
                let base = request.base.clone();
                let longest = if routes::wait::is_wished(&request) { LONGEST_WITH_WAIT } else { LONGEST };
                let deadline = Deadline::of_invocation(context.deadline(), MARGIN, longest).within(longest);
                let response = router::route(self, request, deadline).await;
                response.map(|response| response.behind(&base))
            }
            Err(error) => Err(error),
        };
        let request_id = context.request_id;
        let mut response = response.unwrap_or_else(|error| error.into_response(&request_id));
        response.headers.push(("request-id", request_id));
        Ok(event::encode(response))
    }
}

/// The path of a URL, without a slash at its end.
fn path_of(url: &str) -> String {
    let url: Option<http::Uri> = url.parse().ok();
    url.map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default()
}
