//! Records what runs came to, many at once. What keeps one of them from being recorded keeps no other: one whose job or
//! account somebody else holds is come back to, one that the database refuses is sought out by halves.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use serde::Serialize;
use shared::{
    db::{Db, DbError, queue::Settled},
    domain::{Deadline, ErrorCode, JobError, Lease, Status, Verdict},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    MARGIN,
    recording::{Failures, HELD_PAUSE, Mend, SEND_BUDGET, SLOW, TO_ANSWER, halves, parts},
};

/// How long an outcome waits for company before it is settled.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// How many outcomes one statement settles at most.
const SETTLE_LIMIT: usize = 500;
/// And how many bytes of output.
const SETTLE_BYTES: usize = 4 * 1024 * 1024;
/// How long what others hold is waited for, the first time and at most: all statements of this worker wait as long.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(800));

/// What became of the runs of a tick.
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
    /// Finished after their lease was lost, or never recorded: nothing of them was written.
    pub lost: usize,
}

type Ended = (Lease, Verdict);

/// What one statement is to record.
struct Batch {
    verdicts: Vec<Ended>,
    patience: Patience,
}

/// How long a statement that settles waits for what others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// 200 ms for each; then nothing is settled.
    AllOrNothing,
    /// So long in all; then the others are settled.
    WithoutThem(Duration),
}

/// What the runs of one drain came to, and what of it is to be recorded.
pub(crate) struct Settler<'a> {
    db: &'a Db,
    /// There are messages to send.
    told: &'a watch::Sender<()>,
    pending: Vec<Ended>,
    settle_at: Option<Instant>,
    /// What somebody is in the way of, and when it is come back to.
    held: Vec<(Instant, Ended)>,
    /// Jobs whose verdict was sent, and not answered: perhaps it is recorded.
    unanswered: HashSet<Uuid>,
    patience: Duration,
    pause: Duration,
    tally: Tally,
}

impl<'a> Settler<'a> {
    pub(crate) fn new(db: &'a Db, told: &'a watch::Sender<()>) -> Self {
        let (pending, held, settle_at, unanswered) = (Vec::new(), Vec::new(), None, HashSet::new());
        let (patience, pause, tally) = (PATIENCE.0, HELD_PAUSE.0, Tally::default());
        Self { db, told, pending, settle_at, held, unanswered, patience, pause, tally }
    }

    /// What is recorded so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many verdicts are still to be recorded.
    pub(crate) fn unrecorded(&self) -> usize {
        self.pending.len() + self.held.len()
    }

    /// Whether verdicts are left that somebody is in the way of.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// When to flush next, if there is anything to.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.held.iter().map(|(at, _)| *at).chain(self.settle_at).min()
    }

    /// Whether as many wait as one statement settles, or half of that.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= SETTLE_LIMIT
    }

    /// Whether enough wait to be worth a statement now.
    pub(crate) fn is_half_full(&self) -> bool {
        self.pending.len() >= SETTLE_LIMIT / 2
    }

    /// Takes a verdict on.
    pub(crate) fn push(&mut self, lease: Lease, verdict: Verdict) {
        self.pending.push((lease, verdict));
        self.settle_at.get_or_insert_with(|| Instant::now() + SETTLE_AFTER);
    }

    /// Records what waits, and comes back to what somebody was in the way of, if it is time to. While the database is away, it
    /// tries until the margin of the invocation is used up; what is not recorded then is done again once its lease has expired.
    pub(crate) async fn flush(&mut self, deadline: Deadline) {
        self.settle_at = None;
        // Part of the margin is for this: one part for all that comes late, or a silent database would use up the invocation
        // outcome by outcome.
        let until = deadline.later(MARGIN - TO_ANSWER);
        let busy: HashMap<Uuid, Instant> =
            self.held.iter().map(|(at, (lease, _))| (lease.account_id, *at)).collect();
        let mut free = Vec::new();
        for ended in std::mem::take(&mut self.pending) {
            match busy.get(&ended.0.account_id) {
                Some(at) => self.held.push((*at, ended)),
                None => free.push(ended),
            }
        }
        while !free.is_empty() {
            let batch = first_batch(&mut free);
            self.record(batch, Patience::AllOrNothing, until).await;
        }
        self.come_back(until).await;
    }

    /// Comes back to what somebody is in the way of, until the margin of the invocation is used up.
    pub(crate) async fn finish(&mut self, deadline: Deadline) {
        let until = deadline.later(MARGIN - TO_ANSWER);
        while self.holds() && until.left() > HELD_PAUSE.0 {
            self.pause = HELD_PAUSE.0;
            self.come_back(until).await;
            let next = self.at().unwrap_or_else(Instant::now).max(Instant::now() + HELD_PAUSE.0);
            sleep_until(next.min(until.instant())).await;
        }
        let held: Vec<Ended> = std::mem::take(&mut self.held).into_iter().map(|(_, ended)| ended).collect();
        self.lose(&held, "somebody held them, or their accounts, all the while");
    }

    /// Comes back to what it is time to.
    async fn come_back(&mut self, until: Deadline) {
        let now = Instant::now();
        let (due, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(at, _)| *at <= now);
        self.held = held;
        if due.is_empty() {
            return;
        }
        let mut due: Vec<Ended> = due.into_iter().map(|(_, ended)| ended).collect();
        let patience = Patience::WithoutThem(self.patience);
        (self.patience, self.pause) =
            ((self.patience * 2).min(PATIENCE.1), (self.pause * 2).min(HELD_PAUSE.1));
        while !due.is_empty() {
            let batch = first_batch(&mut due);
            self.record(batch, patience, until).await;
        }
    }

    /// Leaves these alone for a while.
    fn hold(&mut self, batch: Vec<Ended>, pause: Duration) {
        let at = Instant::now() + pause;
        self.held.extend(batch.into_iter().map(|ended| (at, ended)));
    }

    /// Records these. What cannot be recorded together is tried by halves; what cannot be alone takes no other with it.
    async fn record(&mut self, verdicts: Vec<Ended>, patience: Patience, until: Deadline) {
        let mut batches = VecDeque::from([Batch { verdicts, patience }]);
        let (mut failures, since) = (Failures::none(), Instant::now());
        while let Some(mut batch) = batches.pop_front() {
            let begun = Instant::now();
            let error = match self.settle(&batch, until).await {
                Ok(settled) => {
                    failures = Failures::none();
                    self.note(batch.verdicts, settled);
                    continue;
                }
                Err(error) => error,
            };
            if matches!(error, DbError::Unknown(_)) {
                self.unanswered.extend(batch.verdicts.iter().map(|(lease, _)| lease.job_id));
            }
            let took = begun.elapsed();
            if matches!(error, DbError::Busy(_)) && batch.patience == Patience::AllOrNothing {
                batch.patience = Patience::WithoutThem(PATIENCE.0);
                if took < SLOW {
                    batches.push_front(batch);
                    continue;
                }
            }
            let part = |verdicts| Batch { verdicts, ..batch };
            match failures.mend(&error, (batch.verdicts.len(), since.elapsed()), until).await {
                Mend::Again => batches.push_front(batch),
                Mend::Part { slow } => match parts(batch.verdicts, |(lease, _)| lease.account_id) {
                    Ok(parts) => batches.extend(parts.into_iter().map(part)),
                    // Left alone for twice as long as it took.
                    Err(of_one) if slow => self.hold(of_one, took * 2),
                    Err(of_one) => batches.extend(halves(of_one).map(part)),
                },
                Mend::ComeBack => self.hold(batch.verdicts, if took < SLOW { self.pause } else { took * 2 }),
                Mend::Refuse if matches!(error, DbError::Broken(_)) => {
                    let verdicts = self.give_up(batch.verdicts, &error.to_string());
                    if !verdicts.is_empty() {
                        batches.push_front(Batch { verdicts, ..batch });
                    }
                }
                // A verdict that the schema does not know yet is no failure of its job.
                Mend::Refuse | Mend::Lose => self.lose(&batch.verdicts, &error.to_string()),
            }
        }
    }

    /// Sends the verdicts once.
    async fn settle(&self, batch: &Batch, until: Deadline) -> Result<Settled, DbError> {
        let budget = until.within(SEND_BUDGET);
        let settled = match batch.patience {
            Patience::AllOrNothing => self.db.settle(&batch.verdicts, budget).await?,
            Patience::WithoutThem(wait) => self.db.settle_within_reach(&batch.verdicts, wait, budget).await?,
        };
        match batch.verdicts.iter().any(|(lease, _)| self.unanswered.contains(&lease.job_id)) {
            true => Ok(self.with_what_was_done(&batch.verdicts, settled, until).await),
            false => Ok(settled),
        }
    }

    /// What a statement settled that was sent before, and whose answer was lost, is settled.
    async fn with_what_was_done(&self, batch: &[Ended], mut settled: Settled, until: Deadline) -> Settled {
        let answered: HashSet<Uuid> =
            settled.jobs.iter().map(|(id, _)| *id).chain(settled.out_of_reach.iter().copied()).collect();
        let missing: Vec<_> = batch.iter().filter(|(lease, _)| !answered.contains(&lease.job_id)).collect();
        let runs: Vec<(Uuid, i64)> =
            missing.iter().map(|(lease, _)| (lease.job_id, lease.lease_token)).collect();
        if runs.is_empty() {
            return settled;
        }
        match self.db.ended_runs(&runs, until).await {
            Ok(ended) => {
                let done =
                    missing.iter().filter(|(lease, _)| ended.contains(&(lease.job_id, lease.lease_token)));
                settled.jobs.extend(done.map(|(lease, verdict)| (lease.job_id, meant_status(verdict))));
                settled.told = true;
            }
            Err(error) => {
                tracing::warn!(error = %error, "it is not known what an unanswered statement settled")
            }
        }
        settled
    }

    /// An outcome that cannot be recorded becomes a failure that can.
    fn give_up(&mut self, batch: Vec<Ended>, why: &str) -> Vec<Ended> {
        let (lost, failed): (Vec<_>, Vec<_>) = batch.into_iter().partition(|(_, verdict)| {
            matches!(verdict, Verdict::Fail(_) | Verdict::Cancel | Verdict::Return)
        });
        self.lose(&lost, why);
        let fail = |(lease, _): Ended| {
            tracing::error!(job.id = %lease.job_id, error = why, "outcome refused by the database");
            (lease, Verdict::Fail(JobError::new(ErrorCode::InvalidOutput, "the outcome cannot be recorded")))
        };
        failed.into_iter().map(fail).collect()
    }

    fn lose(&mut self, batch: &[Ended], why: &str) {
        for (lease, _) in batch {
            tracing::error!(job.id = %lease.job_id, error = why, "outcome not recorded, the lease will expire");
        }
        self.tally.lost += batch.len();
    }

    fn note(&mut self, batch: Vec<Ended>, settled: Settled) {
        if settled.told {
            self.told.send_replace(());
        }
        let out_of_reach: HashSet<Uuid> = settled.out_of_reach.into_iter().collect();
        let (held, batch): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(lease, _)| out_of_reach.contains(&lease.job_id));
        if held.is_empty() {
            (self.patience, self.pause) = (PATIENCE.0, HELD_PAUSE.0);
        } else {
            let (jobs, account) = (held.len(), held[0].0.account_id);
            tracing::warn!(jobs, account.id = %account, "somebody holds jobs, or their account: tried again");
            self.hold(held, self.pause);
        }
        let settled: HashMap<Uuid, Status> = settled.jobs.into_iter().collect();
        for (lease, verdict) in &batch {
            *self.count_of(lease, verdict, settled.get(&lease.job_id).copied()) += 1;
        }
    }

    fn count_of(&mut self, lease: &Lease, verdict: &Verdict, status: Option<Status>) -> &mut usize {
        let tally = &mut self.tally;
        match (status, verdict) {
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
        }
    }
}

/// How a job stands after a verdict, as a rule.
fn meant_status(verdict: &Verdict) -> Status {
    match verdict {
        Verdict::Complete { .. } => Status::Succeeded,
        Verdict::Fail(_) | Verdict::Reject(_) => Status::Failed,
        Verdict::Cancel => Status::Canceled,
        Verdict::Wait { .. } => Status::Running,
        Verdict::Retry { .. }
        | Verdict::Snooze { .. }
        | Verdict::Yield
        | Verdict::Crash { .. }
        | Verdict::Return => Status::Queued,
    }
}

/// Takes the first verdicts off: no more than one statement settles, and no more than a small function can hold twice.
fn first_batch(verdicts: &mut Vec<Ended>) -> Vec<Ended> {
    let mut bytes = 0;
    let fit = verdicts.iter().take(SETTLE_LIMIT).take_while(|(lease, verdict)| {
        bytes += match verdict {
            Verdict::Complete { output, .. } => output.get().len(),
            _ => lease.checkpoint.as_ref().map_or(0, |saved| saved.get().len()),
        };
        bytes <= SETTLE_BYTES
    });
    let count = fit.count().max(1);
    verdicts.drain(..count).collect()
}
