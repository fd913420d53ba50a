//! One scheduled run: takes back what has lapsed, then drains.

use shared::{
    db::{DbError, queue::Chores},
    domain::{Deadline, Status},
};

use crate::{Summary, Worker, deliver, drain::Trigger};

/// How many lapsed jobs one statement takes back.
const RESCUE_LIMIT: usize = 1_000;

pub(crate) async fn run(worker: &Worker, deadline: Deadline) -> Result<Summary, DbError> {
    let mut summary = Summary::default();
    let chores = rescue(worker, deadline, &mut summary).await?;
    deliver::while_draining(worker, Trigger::Tick, chores.deliveries, deadline, &mut summary).await?;
    if chores.returns {
        // The next tick tries again: what waits is the account's all the while.
        match worker.db.return_credits(deadline).await {
            Ok(accounts) => summary.credits_returned = accounts,
            Err(error) => tracing::error!(error = %error, "credits wait to be returned to their source"),
        }
    }
    Ok(summary)
}

/// Answers what else there is to do.
async fn rescue(worker: &Worker, deadline: Deadline, summary: &mut Summary) -> Result<Chores, DbError> {
    loop {
        let (jobs, chores) = worker.db.rescue(RESCUE_LIMIT as i64, deadline).await?;
        for job in &jobs {
            match job.status {
                Status::Queued => summary.rescued += 1,
                Status::Failed => summary.lapsed += 1,
                Status::Running | Status::Succeeded | Status::Canceled => {}
            }
            tracing::warn!(job.id = %job.job_id, status = %job.status, "lapsed job taken back");
        }
        if jobs.len() < RESCUE_LIMIT {
            return Ok(chores);
        }
    }
}
