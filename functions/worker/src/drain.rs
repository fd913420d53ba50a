//! Claims and runs due jobs while there are any and time is left: what a tick and a batch of wake-ups have in common.

use std::{sync::Arc, time::Duration};

use shared::{
    db::{
        DbError,
        queue::{Capacity, Claimed, Cursor},
    },
    domain::Deadline,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{MARGIN, Summary, Worker, executor::Executor, help::Help, jobs::Kinds};

/// How many jobs one statement claims at most.
const CLAIM_LIMIT: usize = 500;
/// How often a lingering tick looks for due jobs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a drain whose last jobs are still running looks for due ones.
const LOOK_ANYWAY_EVERY: Duration = Duration::from_secs(1);
/// How long a few free slots wait for more, before they are worth a statement.
const REFILL_AFTER: Duration = Duration::from_millis(250);
/// How often a claim looks at everything that is due, not just at what comes after the last claim: a few jobs become
/// due behind it (returned ones, and what a long transaction queued).
const LOOK_BACK_EVERY: Duration = Duration::from_secs(10);
/// A lease outlasts the invocation by this much: the worker's clock and the database's do not tick in step.
const LEASE_GRACE: Duration = Duration::from_secs(5);

/// What a drain is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trigger<'a> {
    /// The schedule: jobs of every kind, lingering for more, and calling for help if there are too many.
    Tick,
    /// Wake-ups: these jobs first, then others of kinds that are dispatched by SQS.
    Wake(&'a [Uuid]),
}

/// Drains the queue, and says by `told` that there are messages to send.
pub(crate) async fn run(
    worker: &Worker,
    trigger: Trigger<'_>,
    told: &watch::Sender<()>,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), DbError> {
    let secrets = worker.secrets.get(deadline).await?;
    let kinds = Kinds::new(Arc::clone(&worker.handlers), &secrets, &worker.config);
    if !kinds.serve_http() {
        tracing::warn!("there is no SIGNING_SECRET: jobs of HTTP targets wait");
    }
    let mut claims = Claims::new(worker, trigger, &kinds);
    let mut executor = Executor::new(&worker.db, kinds, told);
    let mut help = Help::of(worker, trigger);
    let concurrency = worker.config.concurrency;

    let mut failed = None;
    // When to look for due jobs next; `None` once there were none.
    let mut next_look = Some(Instant::now());
    let mut last_look = Instant::now();
    let mut last_due = Instant::now();
    loop {
        let free = concurrency - executor.in_flight();
        // Half of the slots free is worth a statement at once; a few are, every now and then.
        let refill = if free * 2 >= concurrency { last_look } else { last_look + REFILL_AFTER };
        // As long as this invocation lives anyway, it looks now and then for what has become due: a worker with one long
        // job may be the only one that is free.
        let busy = executor.in_flight() > 0 || executor.holds();
        let anyway = (busy && failed.is_none()).then(|| last_look + LOOK_ANYWAY_EVERY);
        let look = next_look.or(anyway).map(|at| at.max(refill));
        let look = look.filter(|_| free > 0 && deadline.left() > Duration::ZERO);
        if look.is_some_and(|at| at <= Instant::now()) {
            let limit = free.min(CLAIM_LIMIT);
            last_look = Instant::now();
            // What was done is recorded while what comes next is claimed.
            let ((), leases) = tokio::join!(executor.flush_many(deadline), claims.next(limit, deadline));
            let drained;
            let leases = match leases {
                Ok(claimed) => {
                    if claimed.told {
                        told.send_replace(());
                    }
                    // Those that came one by one may have been all that there was time for.
                    drained = match claimed.singly {
                        true => claimed.leases.is_empty(),
                        false => claimed.leases.len() < limit,
                    };
                    claimed.leases
                }
                // What runs already is worth settling first; then the drain has failed.
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
            for lease in leases {
                executor.start(lease, deadline);
            }
            help.wanted(!drained);
            next_look = match (drained, trigger) {
                (false, _) => Some(Instant::now()),
                (true, Trigger::Tick) if last_due.elapsed() < worker.config.linger => {
                    Some(Instant::now() + LOOK_EVERY)
                }
                (true, _) => None,
            };
        } else if executor.is_full() {
            executor.flush(deadline).await;
        } else if help.at(deadline).is_some_and(|at| at <= Instant::now()) {
            summary.called += help.call(executor.finished(), deadline).await;
        } else if executor.in_flight() > 0 || (executor.holds() && deadline.left() > Duration::ZERO) {
            let wake = [look, help.at(deadline)].into_iter().flatten().min();
            executor.next(deadline, wake).await;
        } else {
            executor.flush(deadline).await;
            match look {
                Some(at) => sleep_until(at).await,
                // What somebody is in the way of is worth the rest of the invocation.
                None if executor.holds() && deadline.left() > Duration::ZERO => {}
                None => break,
            }
        }
    }
    executor.finish(deadline).await;
    summary.settled = executor.tally();
    match failed {
        None => Ok(()),
        Some(error) => {
            tracing::warn!(?summary, "what was settled before the claim failed");
            Err(error)
        }
    }
}

/// One claim after the other, each from where the last one ended.
struct Claims<'a> {
    worker: &'a Worker,
    rust_kinds: Vec<&'static str>,
    http: bool,
    woken: bool,
    named: &'a [Uuid],
    cursor: Cursor,
    looked_back: Instant,
}

impl<'a> Claims<'a> {
    fn new(worker: &'a Worker, trigger: Trigger<'a>, kinds: &Kinds) -> Self {
        let (woken, named) = match trigger {
            Trigger::Tick => (false, [].as_slice()),
            Trigger::Wake(named) => (true, named),
        };
        let (rust_kinds, http) = (kinds.names(), kinds.serve_http());
        let (cursor, looked_back) = (Cursor::default(), Instant::now());
        Self { worker, rust_kinds, http, woken, named, cursor, looked_back }
    }

    async fn next(&mut self, limit: usize, deadline: Deadline) -> Result<Claimed, DbError> {
        if self.looked_back.elapsed() > LOOK_BACK_EVERY {
            (self.cursor, self.looked_back) = (Cursor::default(), Instant::now());
        }
        let budget = deadline.left();
        let capacity = Capacity {
            limit,
            named: std::mem::take(&mut self.named),
            rust_kinds: &self.rust_kinds,
            http: self.http,
            woken: self.woken,
            budget,
            lease: budget + MARGIN + LEASE_GRACE,
        };
        self.worker.db.claim(capacity, &mut self.cursor, deadline).await
    }
}
