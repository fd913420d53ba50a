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
    rescue(worker, deadline, &mut summary).await?;
    drain::run(worker, Trigger::Tick, deadline, &mut summary).await?;
    Ok(summary)
}

async fn rescue(worker: &Worker, deadline: Deadline, summary: &mut Summary) -> Result<(), DbError> {
    loop {
        let jobs = worker.db.rescue(RESCUE_LIMIT as i64, deadline).await?;
        for job in &jobs {
            match job.status {
                Status::Queued => summary.rescued += 1,
                Status::Failed => summary.lapsed += 1,
                Status::Running | Status::Succeeded | Status::Canceled => {}
            }
            tracing::warn!(job.id = %job.job_id, status = %job.status, "lapsed job taken back");
        }
        if jobs.len() < RESCUE_LIMIT {
            return Ok(());
        }
    }
}
