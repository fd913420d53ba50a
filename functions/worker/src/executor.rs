//! Runs leases, many at once, and leaves what they come to to the settler. No transaction is open meanwhile.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::{
    db::{Db, queue::Report},
    domain::{Deadline, Lease, Outcome, Target, Verdict},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    attempt::attempt,
    jobs::{Kinds, News, Run},
    settler::{Settler, Tally},
};

/// How often the jobs in flight are reported: their progress goes out, and who is canceled comes back.
const CHECK_IN_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Executor<'a> {
    db: &'a Db,
    kinds: Arc<Kinds>,
    running: JoinSet<(Arc<Run>, Outcome)>,
    /// By job and lease token: a job may come again while a call of its last run still hangs.
    runs: HashMap<(Uuid, i64), Arc<Run>>,
    check_in_at: Instant,
    /// A run has something that is not to wait for that.
    hurry: Arc<Notify>,
    settler: Settler<'a>,
}

impl<'a> Executor<'a> {
    /// An executor of these kinds that says by `told` that there are messages to send.
    pub(crate) fn new(db: &'a Db, kinds: Kinds, told: &'a watch::Sender<()>) -> Self {
        Self {
            db,
            kinds: Arc::new(kinds),
            running: JoinSet::new(),
            runs: HashMap::new(),
            check_in_at: Instant::now(),
            hurry: Arc::default(),
            settler: Settler::new(db, told),
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
        } = *self.settler.tally();
        let again = retried + snoozed + crashed + yielded + waiting;
        succeeded + again + failed + canceled + lost + self.settler.unrecorded()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.settler.tally().clone()
    }

    /// Whether there are outcomes that somebody is in the way of.
    pub(crate) fn holds(&self) -> bool {
        self.settler.holds()
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
        let settle_at = self.settler.at().unwrap_or(never);
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
            Ok(checked_in) => {
                for (news, run) in &news {
                    if checked_in.noted.contains(&run.lease.job_id) {
                        run.wrote(news);
                    }
                    if checked_in.to_cancel.contains(&run.lease.job_id) {
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
        self.settler.push(lease, verdict);
    }

    /// Whether as much has finished as one statement settles.
    pub(crate) fn is_full(&self) -> bool {
        self.settler.is_full()
    }

    /// Settles what has finished, if that is enough to be worth a statement now.
    pub(crate) async fn flush_many(&mut self, deadline: Deadline) {
        if self.settler.is_half_full() {
            self.settler.flush(deadline).await;
        }
    }

    /// Settles what has finished.
    pub(crate) async fn flush(&mut self, deadline: Deadline) {
        self.settler.flush(deadline).await;
    }

    /// Settles what somebody is still in the way of, as long as there is time.
    pub(crate) async fn finish(&mut self, deadline: Deadline) {
        self.settler.finish(deadline).await;
    }
}

/// A random point in `0.0..=1.0`; the middle if the system has no randomness to give.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
