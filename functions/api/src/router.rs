//! (method, path) → endpoint: the API at a glance.

use shared::domain::Deadline;

use crate::{
    App,
    error::ApiError,
    event::{Request, Response},
    routes::{self, credits, jobs, life},
};

pub(crate) async fn route(app: &App, request: Request, deadline: Deadline) -> Result<Response, ApiError> {
    let path = request.path.trim_end_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["api", "health"]) => routes::health(app, deadline).await,
        ("POST", ["api", "jobs"]) => jobs::create_job(app, &request, deadline).await,
        ("POST", ["api", "jobs:batch"]) => jobs::create_batch(app, &request, deadline).await,
        ("GET", ["api", "jobs"]) => jobs::list_jobs(app, &request, deadline).await,
        ("GET", ["api", "jobs", id]) => jobs::get_job(app, &request, id, deadline).await,
        ("POST", ["api", "jobs", id, "cancel"]) => life::cancel_job(app, &request, id, deadline).await,
        ("POST", ["api", "jobs", id, "retry"]) => life::retry_job(app, &request, id, deadline).await,
        ("GET", ["api", "jobs", id, "attempts"]) => life::list_attempts(app, &request, id, deadline).await,
        ("POST", ["api", "kinds", kind, "redrive"]) => life::redrive(app, &request, kind, deadline).await,
        ("GET", ["api", "credits"]) => credits::get_credits(app, &request, deadline).await,
        ("GET", ["api", "credits", "ledger"]) => credits::list_ledger(app, &request, deadline).await,
        ("POST", ["api", "credits", "grants"]) => credits::grant_credits(app, &request, deadline).await,
        (
            _,
            ["api", "health" | "jobs" | "jobs:batch" | "credits"]
            | ["api", "jobs", _]
            | ["api", "jobs", _, "cancel" | "retry" | "attempts"]
            | ["api", "kinds", _, "redrive"]
            | ["api", "credits", "ledger" | "grants"],
        ) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::not_found()),
    }
}
