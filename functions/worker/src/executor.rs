//! Runs leases, many at once, and settles what they come to in batches. No transaction is open meanwhile.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::Serialize;
use shared::{
    db::{
        Db, DbError,
        queue::{Report, Settled},
    },
    domain::{Deadline, ErrorCode, JobError, Lease, Outcome, Status, Target, Verdict},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    MARGIN,
    attempt::attempt,
    jobs::{Kinds, News, Run},
};

/// How long an outcome waits for company before it is settled.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// What the margin of the invocation has left when outcomes are no longer recorded.
const TO_ANSWER: Duration = Duration::from_millis(500);
/// How many outcomes one statement settles at most.
const SETTLE_LIMIT: usize = 500;
/// And how many bytes of output.
const SETTLE_BYTES: usize = 4 * 1024 * 1024;
/// How often the jobs in flight are reported: their progress goes out, and who is canceled comes back.
const CHECK_IN_EVERY: Duration = Duration::from_secs(2);

/// What became of the attempts of a tick.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    /// Done and captured.
    pub succeeded: usize,
    /// Erred, and to be tried again.
    pub retried: usize,
    /// To be tried again, for no fault of their own.
    pub snoozed: usize,
    /// Out of time, and to be tried again.
    pub crashed: usize,
    /// Stopped in time, and to be gone on with.
    pub yielded: usize,
    /// Left to somebody outside, who calls back.
    pub waiting: usize,
    /// Given up.
    pub failed: usize,
    /// Canceled while they ran.
    pub canceled: usize,
    /// Given back without having been started.
    pub returned: usize,
    /// Finished after their lease was lost: nothing of them was written.
    pub lost: usize,
}

pub(crate) struct Executor<'a> {
    db: &'a Db,
    kinds: Arc<Kinds>,
    told: &'a watch::Sender<()>,
    running: JoinSet<(Arc<Run>, Outcome)>,
    /// By job and lease token: a job may come again while a call of its last run still hangs.
    runs: HashMap<(Uuid, i64), Arc<Run>>,
    check_in_at: Instant,
    /// A run has something that is not to wait for that.
    hurry: Arc<Notify>,
    settled: Vec<(Lease, Verdict)>,
    settle_at: Option<Instant>,
    tally: Tally,
}

impl<'a> Executor<'a> {
    /// An executor of these kinds that says by `told` that there are messages to send.
    pub(crate) fn new(db: &'a Db, kinds: Kinds, told: &'a watch::Sender<()>) -> Self {
        Self {
            db,
            told,
            kinds: Arc::new(kinds),
            running: JoinSet::new(),
            runs: HashMap::new(),
            check_in_at: Instant::now(),
            hurry: Arc::default(),
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
        let Tally {
            succeeded,
            retried,
            snoozed,
            crashed,
            yielded,
            waiting,
            failed,
            canceled,
            returned: _,
            lost,
        } = self.tally;
        let again = retried + snoozed + crashed + yielded + waiting;
        succeeded + again + failed + canceled + lost + self.settled.len()
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
        if self.runs.is_empty() {
            self.check_in_at = Instant::now() + CHECK_IN_EVERY;
        }
        let (kinds, run) = (Arc::clone(&self.kinds), Arc::new(self.kinds.run(lease).hurried_by(&self.hurry)));
        self.runs.insert((run.lease.job_id, run.lease.lease_token), Arc::clone(&run));
        self.running.spawn(async move {
            let outcome = attempt(&kinds, &run).await;
            (run, outcome)
        });
    }

    /// Waits until a job finishes, outcomes are due for settling, or `wake`.
    pub(crate) async fn next(&mut self, deadline: Deadline, wake: Option<Instant>) {
        let never = Instant::now() + Duration::from_secs(3_600);
        let settle_at = self.settle_at.unwrap_or(never);
        tokio::select! {
            Some(finished) = self.running.join_next() => {
                match finished {
                    Ok((run, outcome)) => {
                        self.runs.remove(&(run.lease.job_id, run.lease.lease_token));
                        // What an earlier run saved is there already.
                        let lease = Lease { checkpoint: run.saved(), ..run.lease.clone() };
                        self.record(lease, outcome);
                    }
                    Err(error) => tracing::error!(error = %error, "a job's task was lost; its lease will expire"),
                }
                if self.settled.len() >= SETTLE_LIMIT {
                    self.flush(deadline).await;
                }
            }
            () = sleep_until(settle_at) => self.flush(deadline).await,
            () = sleep_until(self.check_in_at) => self.check_in(deadline).await,
            () = self.hurry.notified() => self.check_in(deadline).await,
            () = sleep_until(wake.unwrap_or(never)) => {}
        }
    }

    /// Says how far the jobs in flight are, and tells those that are canceled.
    async fn check_in(&mut self, deadline: Deadline) {
        self.check_in_at = Instant::now() + CHECK_IN_EVERY;
        let runs = self.runs.values().filter(|run| !run.is_canceled()).cloned();
        let news: Vec<_> = runs.map(|run| (run.news(), run)).collect();
        if news.is_empty() {
            return;
        }
        let report = |(news, run): &(News, Arc<Run>)| Report {
            job_id: run.lease.job_id,
            lease_token: run.lease.lease_token,
            percent: news.progress.as_ref().map(|progress| progress.percent.into()),
            message: news.progress.as_ref().and_then(|progress| progress.message.clone()),
            checkpoint: news.saved.clone(),
        };
        let reports: Vec<Report> = news.iter().map(report).collect();
        match self.db.check_in(&reports, deadline).await {
            Ok(canceled) => {
                for (news, run) in &news {
                    run.wrote(news);
                    if canceled.contains(&run.lease.job_id) {
                        tracing::info!(job.id = %run.lease.job_id, "canceled, told to stop");
                        run.cancel();
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "checking in failed, tried again in two seconds"),
        }
    }

    fn record(&mut self, lease: Lease, outcome: Outcome) {
        if let Outcome::Done { used: Some(used), .. } = &outcome
            && *used > lease.price
        {
            tracing::warn!(job.id = %lease.job_id, kind = lease.kind, used, held = lease.price, "more used than held");
        }
        let verdict = lease.settle(outcome, jitter());
        if let Verdict::Retry { error, .. }
        | Verdict::Snooze { error: Some(error), .. }
        | Verdict::Crash { error, .. }
        | Verdict::Fail(error)
        | Verdict::Reject(error) = &verdict
        {
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
                Ok(settled) => {
                    self.count(&batch, &settled.jobs.into_iter().collect());
                    if settled.told {
                        self.told.send_replace(());
                    }
                }
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
        let fit = self.settled.iter().take(limit).take_while(|(lease, verdict)| {
            bytes += match verdict {
                Verdict::Complete { output, .. } => output.get().len(),
                _ => lease.checkpoint.as_ref().map_or(0, |saved| saved.get().len()),
            };
            bytes <= SETTLE_BYTES
        });
        let count = fit.count().max(1);
        self.settled.drain(..count).collect()
    }

    /// Sends the verdicts until there is an answer, or no time is left.
    async fn settle(&self, batch: &[(Lease, Verdict)], until: Deadline) -> Result<Settled, DbError> {
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
            if !matches!(verdict, Verdict::Fail(_) | Verdict::Cancel | Verdict::Return) {
                let error = JobError::new(ErrorCode::InvalidOutput, "the outcome cannot be recorded");
                self.settled.push((lease, Verdict::Fail(error)));
            }
        }
    }

    fn count(&mut self, batch: &[(Lease, Verdict)], settled: &HashMap<Uuid, Status>) {
        let tally = &mut self.tally;
        for (lease, verdict) in batch {
            let count = match (settled.get(&lease.job_id), verdict) {
                (Some(Status::Running), Verdict::Wait { .. }) => &mut tally.waiting,
                (None, Verdict::Wait { .. }) => {
                    tracing::info!(job.id = %lease.job_id, "called back already, or the lease is lost");
                    &mut tally.waiting
                }
                (None, _) => {
                    tracing::warn!(job.id = %lease.job_id, attempt = lease.attempt, "lease lost, run discarded");
                    &mut tally.lost
                }
                (Some(Status::Succeeded), _) => &mut tally.succeeded,
                (Some(Status::Failed), _) => &mut tally.failed,
                (Some(Status::Canceled), _) => &mut tally.canceled,
                (Some(_), Verdict::Snooze { .. }) => &mut tally.snoozed,
                (Some(_), Verdict::Crash { .. }) => &mut tally.crashed,
                (Some(_), Verdict::Yield) => &mut tally.yielded,
                (Some(_), Verdict::Return) => &mut tally.returned,
                (Some(_), _) => &mut tally.retried,
            };
            *count += 1;
        }
    }
}

/// A random point in `0.0..=1.0`; the middle if the system has no randomness to give.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
