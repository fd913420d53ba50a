//! Waiting for a job: a narrow read now and then, and nothing held in the database meanwhile.

use std::time::Duration;

use shared::{
    config::LONGEST_WAIT,
    db::{DbError, jobs::Job},
    domain::Deadline,
};
use tokio::time::sleep_until;
use uuid::Uuid;

use crate::{
    App,
    error::ApiError,
    event::Request,
    headers::{preferred_wait, whole},
};

/// Kept free to read the job in after a wait; a narrow read that takes longer ends the wait.
const READ_BUDGET: Duration = Duration::from_secs(2);
/// The first pause between two looks, and the longest. Each is half as long again as the one before, so that a job is seen
/// to be final after at most half as long again as it took.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether a request wishes to wait: it is given longer to answer.
pub(crate) fn is_wished(request: &Request) -> bool {
    request.query.contains_key("wait") || preferred_wait(&request.list("prefer")).is_some()
}

/// `Prefer: wait=N`, at most the longest; none, if nobody may wait.
pub(super) fn preferred(app: &App, request: &Request) -> Option<u64> {
    let longest = app.longest_wait.as_secs();
    preferred_wait(&request.list("prefer")).map(|seconds| seconds.min(longest)).filter(|_| longest > 0)
}

/// `?wait=N`; 0 if there is none.
pub(super) fn asked(app: &App, request: &Request) -> Result<Duration, ApiError> {
    let Some(text) = request.query.get("wait") else { return Ok(Duration::ZERO) };
    match whole(text) {
        Some(seconds) if seconds <= LONGEST_WAIT => Ok(Duration::from_secs(seconds).min(app.longest_wait)),
        _ => {
            let error = ApiError::bad("invalid_wait", "A wait is a whole number of seconds from 0 to 25.");
            Err(error.of_parameter("wait"))
        }
    }
}

/// The job as it is once it is final or `wait` is over; `None` if it is not there, or not the owner's.
pub(super) async fn find(
    app: &App,
    id: Uuid,
    owner: Option<Uuid>,
    wait: Duration,
    deadline: Deadline,
) -> Result<Option<Job>, DbError> {
    // What came in between: this read says so itself, or is answered.
    if let Err(error) = until_final(app, id, owner, Duration::ZERO, wait, deadline).await {
        tracing::warn!(job.id = %id, error = %error, "wait interrupted");
    }
    app.db.find_job(id, owner, deadline).await
}

/// The job as it is once it is other than `is_known` says, or final, or `wait` is over; `None` if it is not there, or not the
/// owner's. Each look reads all of it, as an answer would.
pub(super) async fn find_changed(
    app: &App,
    id: Uuid,
    owner: Option<Uuid>,
    is_known: impl Fn(&Job) -> bool,
    wait: Duration,
    deadline: Deadline,
) -> Result<Option<Job>, DbError> {
    let over = deadline.earlier(READ_BUDGET).within(wait);
    let mut pause = FIRST_PAUSE;
    loop {
        let found = app.db.find_job(id, owner, deadline).await?;
        let is_new = found.as_ref().is_none_or(|job| job.status.is_final() || !is_known(job));
        if is_new || over.left().is_zero() {
            return Ok(found);
        }
        sleep_until(over.within(pause).instant()).await;
        pause = (pause * 3 / 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

/// A job that was just bought, as it is once it is final or the wait is over; and for how many seconds it was waited at most, of those preferred. It is bought
/// whatever comes in between: then it is answered as it was.
pub(super) async fn after_buying(
    app: &App,
    job: Job,
    seconds: u64,
    deadline: Deadline,
) -> (Job, Option<u64>) {
    let granted = seconds.min(deadline.earlier(READ_BUDGET).left().as_secs());
    if job.status.is_final() {
        return (job, Some(granted));
    }
    let (id, owner) = (job.id, Some(job.account_id));
    let now = async {
        until_final(app, id, owner, FIRST_PAUSE, Duration::from_secs(granted), deadline).await?;
        app.db.find_job(id, owner, deadline.within(READ_BUDGET)).await
    };
    match now.await {
        Ok(now) => (now.unwrap_or(job), Some(granted)),
        Err(error) => {
            tracing::warn!(job.id = %id, error = %error, "wait interrupted");
            (job, None)
        }
    }
}

/// Returns when the job is final or not there, or the wait is over, and never so late that it could not be read any more.
async fn until_final(
    app: &App,
    id: Uuid,
    owner: Option<Uuid>,
    first: Duration,
    wait: Duration,
    deadline: Deadline,
) -> Result<(), DbError> {
    let over = deadline.earlier(READ_BUDGET).within(wait);
    let mut pause = first;
    loop {
        sleep_until(over.within(pause).instant()).await;
        // The caller's own look at the job is the last.
        if over.left().is_zero() {
            return Ok(());
        }
        if app.db.is_final(id, owner, deadline.within(READ_BUDGET)).await? != Some(false) {
            return Ok(());
        }
        pause = (pause * 3 / 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}
