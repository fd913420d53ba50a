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

/// Answers what else there is to do. A job that cannot be taken back now keeps nothing else waiting: neither those that have
/// lapsed after it, nor the drain.
async fn rescue(worker: &Worker, deadline: Deadline, summary: &mut Summary) -> Result<Chores, DbError> {
    let mut busy = Vec::new();
    loop {
        let (jobs, chores) = match worker.db.rescue(RESCUE_LIMIT as i64, &busy, deadline).await {
            Ok(rescued) => rescued,
            Err(error @ (DbError::Busy(_) | DbError::Broken(_) | DbError::Refused { .. })) => {
                tracing::error!(error = %error, "lapsed jobs wait for the next tick");
                return Ok(Chores { deliveries: true, returns: false });
            }
            Err(error) => return Err(error),
        };
        let before = busy.len();
        for job in &jobs {
            match job.status {
                Some(Status::Queued) => summary.rescued += 1,
                Some(Status::Failed) => summary.lapsed += 1,
                Some(Status::Running | Status::Succeeded | Status::Canceled) => {}
                None => {
                    tracing::warn!(job.id = %job.job_id, "lapsed job cannot be taken back now");
                    if !busy.contains(&job.account_id) {
                        busy.push(job.account_id);
                    }
                    continue;
                }
            }
            tracing::warn!(job.id = %job.job_id, status = ?job.status, "lapsed job taken back");
        }
        // Those of busy accounts may have been all that fits.
        let more = jobs.len() >= RESCUE_LIMIT
            && (before < busy.len() || jobs.iter().any(|job| job.status.is_some()));
        if !more {
            return Ok(chores);
        }
    }
}
