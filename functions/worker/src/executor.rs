//! Runs leases, many at once, and settles what they come to in batches. No transaction is open meanwhile.

use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use serde::Serialize;
use shared::{
    db::{Db, DbError},
    domain::{Deadline, ErrorCode, JobError, Lease, Outcome, Target, Verdict},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{MARGIN, jobs::Kinds};

/// How long an outcome waits for company before it is settled.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// What the margin of the invocation has left when outcomes are no longer recorded.
const TO_ANSWER: Duration = Duration::from_millis(500);
/// How many outcomes one statement settles at most.
const SETTLE_LIMIT: usize = 500;

/// And how many bytes of output.
const SETTLE_BYTES: usize = 4 * 1024 * 1024;

/// What became of the attempts of a tick.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    /// Done and captured.
    pub succeeded: usize,
    /// To be tried again.
    pub retried: usize,
    /// Given up and released.
    pub failed: usize,
    /// Given back without having been started.
    pub returned: usize,
    /// Finished after their lease was lost: nothing of them was written.
    pub lost: usize,
}

pub(crate) struct Executor<'a> {
    db: &'a Db,
    kinds: Arc<Kinds>,
    running: JoinSet<(Lease, Outcome)>,
    settled: Vec<(Lease, Verdict)>,
    settle_at: Option<Instant>,
    tally: Tally,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(db: &'a Db, kinds: Kinds) -> Self {
        Self {
            db,
            kinds: Arc::new(kinds),
            running: JoinSet::new(),
            settled: Vec::new(),
            settle_at: None,
            tally: Tally::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Attempts that have ended so far.
    pub(crate) fn finished(&self) -> usize {
        let Tally { succeeded, retried, failed, returned: _, lost } = self.tally;
        succeeded + retried + failed + lost + self.settled.len()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Starts a job, unless what is left of the invocation, or of the lease, is too short for it: then it goes back
    /// as if it had never been claimed.
    pub(crate) fn start(&mut self, lease: Lease, deadline: Deadline) {
        // A retired kind takes no time: it only fails.
        let fits = lease.timeout <= deadline.left() + Duration::from_secs(1);
        if !fits && lease.target != Target::Retired {
            self.record(lease, Outcome::NotStarted);
            return;
        }
        let kinds = Arc::clone(&self.kinds);
        self.running.spawn(async move {
            let outcome = attempt(&kinds, &lease).await;
            (lease, outcome)
        });
    }

    /// Waits until a job finishes, outcomes are due for settling, or `wake`.
    pub(crate) async fn next(&mut self, deadline: Deadline, wake: Option<Instant>) {
        let never = Instant::now() + Duration::from_secs(3_600);
        let settle_at = self.settle_at.unwrap_or(never);
        tokio::select! {
            Some(finished) = self.running.join_next() => {
                match finished {
                    Ok((lease, outcome)) => self.record(lease, outcome),
                    Err(error) => tracing::error!(error = %error, "a job's task was lost; its lease will expire"),
                }
                if self.settled.len() >= SETTLE_LIMIT {
                    self.flush(deadline).await;
                }
            }
            () = sleep_until(settle_at) => self.flush(deadline).await,
            () = sleep_until(wake.unwrap_or(never)) => {}
        }
    }

    fn record(&mut self, lease: Lease, outcome: Outcome) {
        let verdict = lease.settle(outcome, jitter());
        if let Verdict::Retry { error, .. } | Verdict::Fail(error) = &verdict {
            tracing::warn!(job.id = %lease.job_id, kind = lease.kind, attempt = lease.attempt, code = ?error.code,
                "attempt erred");
        }
        self.settled.push((lease, verdict));
        self.settle_at.get_or_insert_with(|| Instant::now() + SETTLE_AFTER);
    }

    /// Settles what has finished, if that is enough to be worth a statement now.
    pub(crate) async fn flush_many(&mut self, deadline: Deadline) {
        if self.settled.len() >= SETTLE_LIMIT / 2 {
            self.flush(deadline).await;
        }
    }

    /// Settles what has finished. If the database is away, tries until the margin of the invocation is used up;
    /// what is not recorded then is done again once its lease has expired.
    pub(crate) async fn flush(&mut self, deadline: Deadline) {
        self.settle_at = None;
        let mut limit = SETTLE_LIMIT;
        while !self.settled.is_empty() {
            let batch = self.next_batch(limit);
            // Part of the margin is for this: one part for all that comes late, or a silent database would use up the
            // invocation outcome by outcome.
            let until = deadline.later(MARGIN - TO_ANSWER);
            match self.settle(&batch, until).await {
                Ok(ids) => self.count(&batch, &ids.into_iter().collect()),
                // One outcome that the database refuses must not take the others with it.
                Err(DbError::Broken(why)) if batch.len() > 1 => {
                    tracing::error!(error = why, jobs = batch.len(), "settling refused, trying one by one");
                    self.settled.splice(..0, batch);
                    limit = 1;
                }
                Err(DbError::Broken(why)) => self.give_up(batch, &why),
                Err(error) => {
                    tracing::error!(error = %error, jobs = batch.len(), "settling given up, leases will expire");
                }
            }
        }
    }

    /// The first verdicts: no more than `limit`, and no more than a small function can hold twice.
    fn next_batch(&mut self, limit: usize) -> Vec<(Lease, Verdict)> {
        let mut bytes = 0;
        let fit = self.settled.iter().take(limit).take_while(|(_, verdict)| {
            bytes += match verdict {
                Verdict::Complete(output) => output.get().len(),
                Verdict::Retry { .. } | Verdict::Fail(_) | Verdict::Return => 0,
            };
            bytes <= SETTLE_BYTES
        });
        let count = fit.count().max(1);
        self.settled.drain(..count).collect()
    }

    /// Sends the verdicts until there is an answer, or no time is left.
    async fn settle(&self, batch: &[(Lease, Verdict)], until: Deadline) -> Result<Vec<Uuid>, DbError> {
        let mut pause = SETTLE_AFTER;
        loop {
            match self.db.settle(batch, until).await {
                Err(error @ (DbError::Unavailable(_) | DbError::Unknown(_))) if until.left() > pause => {
                    tracing::error!(error = %error, "settling failed, trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    /// An outcome that cannot be recorded becomes a failure that can.
    fn give_up(&mut self, batch: Vec<(Lease, Verdict)>, why: &str) {
        for (lease, verdict) in batch {
            tracing::error!(job.id = %lease.job_id, error = why, "outcome refused by the database");
            if let Verdict::Complete(_) | Verdict::Retry { .. } = verdict {
                let error = JobError::new(ErrorCode::InvalidOutput, "the outcome cannot be recorded");
                self.settled.push((lease, Verdict::Fail(error)));
            }
        }
    }

    fn count(&mut self, batch: &[(Lease, Verdict)], ids: &HashSet<Uuid>) {
        for (lease, verdict) in batch {
            if !ids.contains(&lease.job_id) {
                tracing::warn!(job.id = %lease.job_id, attempt = lease.attempt, "lease lost, attempt discarded");
                self.tally.lost += 1;
                continue;
            }
            match verdict {
                Verdict::Complete(_) => self.tally.succeeded += 1,
                Verdict::Retry { .. } => self.tally.retried += 1,
                Verdict::Fail(_) => self.tally.failed += 1,
                Verdict::Return => self.tally.returned += 1,
            }
        }
    }
}

/// Runs a job once, within its time limit and its lease. A panic is an error like any other.
async fn attempt(kinds: &Kinds, lease: &Lease) -> Outcome {
    let limit = lease.timeout.min(lease.lasts);
    let (code, message) = match AssertUnwindSafe(timeout(limit, kinds.perform(lease))).catch_unwind().await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(_)) => (ErrorCode::TimedOut, format!("not done within {} s", limit.as_secs())),
        Err(_) => (ErrorCode::HandlerPanicked, "the handler panicked".to_owned()),
    };
    Outcome::Err { error: JobError::new(code, message), retry_after: None }
}

/// A random point in `0.0..=1.0`; the middle if the system has no randomness to give.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use shared::{domain::Backoff, secrets::Secrets};

    use super::*;
    use crate::jobs::{Handler, Performing};

    struct Bad(&'static str);

    impl Handler for Bad {
        fn kind(&self) -> &'static str {
            self.0
        }

        fn perform<'a>(&'a self, _: &'a Lease) -> Performing<'a> {
            Box::pin(async move {
                assert_ne!(self.0, "panics", "on purpose");
                std::future::pending().await
            })
        }
    }

    fn lease(kind: &str) -> Lease {
        Lease {
            job_id: uuid::Uuid::nil(),
            lease_token: 1,
            account_id: uuid::Uuid::nil(),
            kind: kind.into(),
            attempt: 1,
            max_attempts: 3,
            input: "{}".into(),
            target: Target::Rust,
            timeout: Duration::from_secs(30),
            lasts: Duration::from_secs(20),
            backoff: Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(60) },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_hang_are_errors_to_be_tried_again() {
        let handlers: [Box<dyn Handler>; 2] = [Box::new(Bad("panics")), Box::new(Bad("hangs"))];
        let kinds = Kinds::new(Arc::new(handlers), &Secrets::default(), false);
        let code = async |kind: &str| match attempt(&kinds, &lease(kind)).await {
            Outcome::Err { error, retry_after: None } => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(code("panics").await.code, ErrorCode::HandlerPanicked);
        let hung = code("hangs").await;
        assert_eq!((hung.code, hung.message.as_str()), (ErrorCode::TimedOut, "not done within 20 s"));
        assert!(matches!(attempt(&kinds, &lease("unknown")).await, Outcome::NotStarted));
    }
}
