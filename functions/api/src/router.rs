//! (method, path) → endpoint: the API at a glance.

use shared::domain::Deadline;

use crate::{
    App,
    error::ApiError,
    event::{Request, Response},
    routes::{self, accounts, callbacks, credits, jobs, kinds, life, statement, webhooks},
};

/// Makes the table of routes, and what follows from it.
macro_rules! routes {
    ($($method:ident $path:literal => $($endpoint:ident)::+ $(($parameter:ident))?;)+) => {
        /// Every route: its method, and its path with `{…}` where any one segment stands.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        /// Answers a request by the endpoint of its route.
        pub(crate) async fn route(
            app: &App,
            request: Request,
            deadline: Deadline,
        ) -> Result<Response, ApiError> {
            $(if request.method == stringify!($method)
                && let Some(_parameter) = fit($path, &request.path)
            {
                $(let $parameter = _parameter;)?
                return $($endpoint)::+(app, &request, $($parameter,)? deadline).await;
            })+
            Err(no_route(&request))
        }

        /// Every operation as its endpoint's annotation describes it.
        #[cfg(feature = "openapi")]
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($($endpoint)::+),+))]
        pub(crate) struct Operations;
    };
}

routes! {
    GET  "/api/health"                => routes::health;
    GET  "/api/openapi.json"          => routes::openapi;
    POST "/api/jobs"                  => jobs::create_job;
    POST "/api/jobs:batch"            => jobs::create_batch;
    POST "/api/jobs:validate"         => jobs::validate_jobs;
    POST "/api/jobs:retry"            => life::retry_jobs;
    GET  "/api/jobs"                  => jobs::list_jobs;
    GET  "/api/jobs/{id}"             => jobs::get_job(id);
    POST "/api/jobs/{id}/cancel"      => life::cancel_job(id);
    POST "/api/jobs/{id}/retry"       => life::retry_job(id);
    GET  "/api/jobs/{id}/runs"        => life::list_runs(id);
    GET  "/api/jobs/{id}/events"      => life::list_events(id);
    GET  "/api/jobs/{id}/deliveries"  => webhooks::list_deliveries(id);
    POST "/api/callbacks/{token}"     => callbacks::call_back(token);
    GET  "/api/kinds"                 => kinds::list_kinds;
    GET  "/api/webhook"               => webhooks::get_webhook;
    PUT  "/api/webhook"               => webhooks::set_webhook;
    DELETE "/api/webhook"             => webhooks::delete_webhook;
    POST "/api/webhook/rotate-secret" => webhooks::rotate_secret;
    GET  "/api/credits"               => credits::get_credits;
    GET  "/api/credits/ledger"        => credits::list_ledger;
    GET  "/api/credits/statement"     => statement::get_statement;
    POST "/api/credits/grants"        => credits::grant_credits;
    POST "/api/accounts/{account_id}/erase"   => accounts::erase_account(id);
    GET  "/api/accounts/{account_id}/erasure" => accounts::get_erasure(id);
    GET  "/api/accounts/{account_id}/export"  => accounts::export_account(id);
}

/// The path of the route that answers a request, if one does.
#[must_use]
pub fn route_of(method: &str, path: &str) -> Option<&'static str> {
    let answers = |(its, template): &&(&str, &str)| *its == method && fit(template, path).is_some();
    ROUTES.iter().find(answers).map(|(_, template)| *template)
}

/// What stands in the path for the template's `{…}` (nothing, if it has none); `None` if the path is another.
fn fit<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let (mut template, mut path) =
        (template.split('/').skip(1), path.trim_end_matches('/').split('/').skip(1));
    let mut parameter = "";
    loop {
        match (template.next(), path.next()) {
            (None, None) => return Some(parameter),
            (Some(name), Some(segment)) if name.starts_with('{') => parameter = segment,
            (Some(name), Some(segment)) if name == segment => {}
            _ => return None,
        }
    }
}

/// 404 if no route has this path, else 405.
fn no_route(request: &Request) -> ApiError {
    let Request { method, path, base, .. } = request;
    let of_path = ROUTES.iter().filter(|(_, template)| fit(template, path).is_some());
    match of_path.map(|(method, _)| *method).collect::<Vec<_>>().as_slice() {
        [] => {
            // So that a base path that nobody told us of is found: the caller hears nothing of it.
            tracing::warn!(method = loggable(method), path = loggable(path), base, "no route");
            ApiError::not_found()
        }
        methods => ApiError::method_not_allowed(methods.join(", ")),
    }
}

/// What may be logged of a path: the token of a call back is longer than any segment that is no secret.
fn loggable(path: &str) -> String {
    let short = |segment: &str| if segment.len() > 40 { "…".to_owned() } else { segment.to_owned() };
    let segments = path.split('/').take(12).map(short);
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::{ROUTES, fit, loggable, route_of};

    #[test]
    fn a_secret_in_a_path_is_not_logged() {
        let token = shared::signing::callback_token("a master secret", uuid::Uuid::nil(), 1);
        assert_eq!(loggable(&format!("/v1/api/callbacks/{token}/x")), "/v1/api/callbacks/…/x");
        assert_eq!(loggable(&"/a".repeat(500)).len(), 22);
    }

    #[test]
    fn a_path_fits_its_template_alone_with_or_without_a_slash_behind_it() {
        assert_eq!(fit("/api/jobs/{id}/cancel", "/api/jobs/7/cancel/"), Some("7"));
        assert_eq!(fit("/api/jobs/{id}", "/api/jobs/%37"), Some("%37"), "as it came");
        assert_eq!(fit("/api/jobs", "/api/jobs"), Some(""));
        for other in ["/api/jobs/7", "/api", "/", "", "/api/Jobs", "//api/jobs", "/api//jobs"] {
            assert_eq!(fit("/api/jobs", other), None, "{other}");
        }
        assert_eq!(fit("/api/jobs/{id}/cancel", "/api/jobs/7"), None);
    }

    #[test]
    fn each_route_is_reached_by_its_own_path() {
        for (method, template) in ROUTES {
            let path: Vec<&str> =
                template.split('/').map(|name| if name.starts_with('{') { "some" } else { name }).collect();
            assert_eq!(route_of(method, &path.join("/")), Some(*template), "{method} {template}");
        }
    }
}
