//! One scheduled run: rescue, then claim and run while time is left.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use shared::{
    db::{
        DbError,
        queue::{Capacity, Cursor},
    },
    domain::{Deadline, Lease, Status},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    MARGIN, Worker,
    executor::{Executor, Tally},
    jobs::Kinds,
};

/// How many lapsed jobs one statement takes back.
const RESCUE_LIMIT: usize = 1_000;
/// How many jobs one statement claims at most.
const CLAIM_LIMIT: usize = 500;
/// How often a lingering tick looks for due jobs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a tick whose last jobs are still running looks for due ones.
const LOOK_ANYWAY_EVERY: Duration = Duration::from_secs(1);
/// How long a few free slots wait for more, before they are worth a statement.
const REFILL_AFTER: Duration = Duration::from_millis(250);
/// How often a claim looks at everything that is due, not just at what comes after the last claim: a few jobs become
/// due behind it (returned ones, and what a long transaction queued).
const LOOK_BACK_EVERY: Duration = Duration::from_secs(10);
/// A lease outlasts the invocation by this much: the worker's clock and the database's do not tick in step.
const LEASE_GRACE: Duration = Duration::from_secs(5);

/// What a tick did.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Lapsed jobs queued again.
    pub rescued: usize,
    /// Lapsed jobs failed and released.
    pub lapsed: usize,
    /// Jobs claimed.
    pub claimed: usize,
    /// What became of them.
    #[serde(flatten)]
    pub settled: Tally,
}

pub(crate) async fn run(worker: &Worker, deadline: Deadline) -> Result<Summary, DbError> {
    let mut summary = Summary::default();
    rescue(worker, deadline, &mut summary).await?;

    let secrets = worker.secrets.get(deadline).await?;
    let kinds = Kinds::new(Arc::clone(&worker.handlers), &secrets, worker.config.allow_private_targets);
    let (rust_kinds, http) = (kinds.names(), kinds.serve_http());
    if !http {
        tracing::warn!("there is no SIGNING_SECRET: jobs of HTTP targets wait");
    }
    let mut executor = Executor::new(&worker.db, kinds);
    let (mut cursor, mut looked_back) = (Cursor::default(), Instant::now());

    let mut failed = None;
    // When to look for due jobs next; `None` once there were none.
    let mut next_look = Some(Instant::now());
    let mut last_look = Instant::now();
    let mut last_due = Instant::now();
    loop {
        let free = worker.config.concurrency - executor.in_flight();
        // Half of the slots free is worth a statement at once; a few are, every now and then.
        let refill = if free * 2 >= worker.config.concurrency { last_look } else { last_look + REFILL_AFTER };
        // As long as this invocation lives anyway, it looks now and then for what has become due.
        let anyway = (executor.in_flight() > 0 && failed.is_none()).then(|| last_look + LOOK_ANYWAY_EVERY);
        let look = next_look.or(anyway).map(|at| at.max(refill));
        let look = look.filter(|_| free > 0 && deadline.left() > Duration::ZERO);
        if look.is_some_and(|at| at <= Instant::now()) {
            let limit = free.min(CLAIM_LIMIT);
            last_look = Instant::now();
            if looked_back.elapsed() > LOOK_BACK_EVERY {
                (cursor, looked_back) = (Cursor::default(), Instant::now());
            }
            // What waits to be settled goes out just before the claim, in the same breath.
            let claim = claim(worker, limit, (&rust_kinds, http), &mut cursor, deadline);
            let ((), leases) = tokio::join!(executor.flush_many(deadline), claim);
            let leases = match leases {
                Ok(leases) => leases,
                // What runs already is worth settling first; then the tick has failed.
                Err(error) => {
                    tracing::error!(error = %error, "claim failed");
                    (next_look, failed) = (None, Some(error));
                    continue;
                }
            };
            summary.claimed += leases.len();
            if !leases.is_empty() {
                last_due = Instant::now();
            }
            let drained = leases.len() < limit;
            for lease in leases {
                executor.start(lease, deadline);
            }
            next_look = match drained {
                false => Some(Instant::now()),
                true if last_due.elapsed() < worker.config.linger => Some(Instant::now() + LOOK_EVERY),
                true => None,
            };
        } else if executor.in_flight() > 0 {
            executor.next(deadline, look).await;
        } else {
            executor.flush(deadline).await;
            match look {
                Some(at) => sleep_until(at).await,
                None => break,
            }
        }
    }
    summary.settled = executor.tally();
    match failed {
        None => Ok(summary),
        Some(error) => {
            tracing::warn!(?summary, "what was settled before the tick failed");
            Err(error)
        }
    }
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

async fn claim(
    worker: &Worker,
    limit: usize,
    (rust_kinds, http): (&[&str], bool),
    cursor: &mut Cursor,
    deadline: Deadline,
) -> Result<Vec<Lease>, DbError> {
    let budget = deadline.left();
    let capacity = Capacity { limit, rust_kinds, http, budget, lease: budget + MARGIN + LEASE_GRACE };
    worker.db.claim(capacity, cursor, deadline).await
}
