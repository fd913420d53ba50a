//! One scheduled run: takes back what has lapsed, then drains. Where more has lapsed than one statement takes back, the rest is
//! beside the drain: an account's jobs that lapse all at once hold up nobody else's. What is due of `upkeep` is done in
//! between.

use shared::{
    db::{DbError, queue::Chores},
    domain::{Deadline, Status},
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Summary, Worker, deliver, drain::Trigger, upkeep};

/// How many lapsed jobs one statement takes back.
const RESCUE_LIMIT: usize = 1_000;

pub(crate) async fn run(worker: &Worker, deadline: Deadline) -> Result<Summary, DbError> {
    let (mut summary, mut rest) = (Summary::default(), Summary::default());
    let mut busy = Vec::new();
    let (more, chores) = rescue(worker, &mut busy, deadline, &mut summary).await?;
    upkeep::keep_up(worker, &chores.upkeep, deadline).await;
    let beside = async |told: &watch::Sender<()>| {
        if more {
            rescue_rest(worker, busy, told, deadline, &mut rest).await;
        }
    };
    deliver::while_draining(worker, Trigger::Tick, chores.deliveries, deadline, &mut summary, beside).await?;
    summary.rescued += rest.rescued;
    summary.lapsed += rest.lapsed;
    if chores.returns {
        // The next tick tries again: what waits is the account's all the while.
        match worker.db.return_credits(deadline).await {
            Ok(accounts) => summary.credits_returned = accounts,
            Err(error) => tracing::error!(error = %error, "credits wait to be returned to their source"),
        }
    }
    Ok(summary)
}

/// Takes back what has lapsed, as far as one statement does; answers whether there may be more, and what else there is to do.
/// A job that cannot be taken back now keeps nothing else waiting, neither those that have lapsed after it nor the drain: the
/// account of one that somebody holds is added to `busy`.
async fn rescue(
    worker: &Worker,
    busy: &mut Vec<Uuid>,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(bool, Chores), DbError> {
    let (jobs, chores) = match worker.db.rescue(RESCUE_LIMIT as i64, busy, deadline).await {
        Ok(rescued) => rescued,
        Err(error) if error.may_be_about_one() => {
            tracing::error!(error = %error, "lapsed jobs wait for the next tick");
            return Ok((false, Chores { deliveries: true, ..Chores::default() }));
        }
        Err(error) => return Err(error),
    };
    let known = busy.len();
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
    // Those of busy accounts may have been all that one statement takes, or all that it had the time for.
    let progress = known < busy.len() || jobs.iter().any(|job| job.status.is_some());
    let more = jobs.len() == RESCUE_LIMIT || jobs.iter().any(|job| job.status.is_none());
    Ok((progress && more, chores))
}

/// All the others. What is not taken back is by the next tick.
async fn rescue_rest(
    worker: &Worker,
    mut busy: Vec<Uuid>,
    told: &watch::Sender<()>,
    deadline: Deadline,
    summary: &mut Summary,
) {
    loop {
        match rescue(worker, &mut busy, deadline, summary).await {
            Ok((more, chores)) => {
                if chores.deliveries {
                    told.send_replace(());
                }
                if !more {
                    return;
                }
            }
            Err(error) => return tracing::error!(error = %error, "lapsed jobs are left to the next tick"),
        }
    }
}
