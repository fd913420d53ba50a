//! One scheduled run: takes back what has lapsed, then drains.

use shared::{
    db::DbError,
    domain::{Deadline, Status},
};

use crate::{
    Summary, Worker,
    drain::{self, Trigger},
};

/// How many lapsed jobs one statement takes back.
const RESCUE_LIMIT: usize = 1_000;

pub(crate) async fn run(worker: &Worker, deadline: Deadline) -> Result<Summary, DbError> {
    let mut summary = Summary::default();
    let has_source = rescue(worker, deadline, &mut summary).await?;
    drain::run(worker, Trigger::Tick, deadline, &mut summary).await?;
    if has_source {
        // The next tick tries again: what waits is the account's all the while.
        match worker.db.return_credits(deadline).await {
            Ok(accounts) => summary.credits_returned = accounts,
            Err(error) => tracing::error!(error = %error, "credits wait to be returned to their source"),
        }
    }
    Ok(summary)
}

/// Answers whether credits come from a source of the team's own.
async fn rescue(worker: &Worker, deadline: Deadline, summary: &mut Summary) -> Result<bool, DbError> {
    loop {
        let (jobs, has_source) = worker.db.rescue(RESCUE_LIMIT as i64, deadline).await?;
        for job in &jobs {
            match job.status {
                Status::Queued => summary.rescued += 1,
                Status::Failed => summary.lapsed += 1,
                Status::Running | Status::Succeeded | Status::Canceled => {}
            }
            tracing::warn!(job.id = %job.job_id, status = %job.status, "lapsed job taken back");
        }
        if jobs.len() < RESCUE_LIMIT {
            return Ok(has_source);
        }
    }
}
