//! (method, path) → endpoint: the API at a glance.

use shared::domain::Deadline;

use crate::{
    App,
    error::ApiError,
    event::{Request, Response},
    routes,
};

pub(crate) async fn route(app: &App, request: Request, deadline: Deadline) -> Result<Response, ApiError> {
    let path = request.path.trim_end_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["api", "health"]) => routes::health(app, deadline).await,
        ("POST", ["api", "jobs"]) => routes::create_job(app, &request, deadline).await,
        ("POST", ["api", "jobs:batch"]) => routes::create_batch(app, &request, deadline).await,
        ("GET", ["api", "jobs"]) => routes::list_jobs(app, &request, deadline).await,
        ("GET", ["api", "jobs", id]) => routes::get_job(app, &request, id, deadline).await,
        ("GET", ["api", "credits"]) => routes::get_credits(app, &request, deadline).await,
        ("GET", ["api", "credits", "ledger"]) => routes::list_ledger(app, &request, deadline).await,
        ("POST", ["api", "credits", "grants"]) => routes::grant_credits(app, &request, deadline).await,
        (
            _,
            ["api", "health" | "jobs" | "jobs:batch" | "credits"]
            | ["api", "jobs", _]
            | ["api", "credits", "ledger" | "grants"],
        ) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::not_found()),
    }
}
