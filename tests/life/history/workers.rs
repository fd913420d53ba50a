//! Workers, and whoever is at work outside: claims, check-ins and verdicts in large batches, some late, twice, or never; and
//! call backs while workers settle.

use std::{collections::HashMap, time::Duration};

use serde_json::value::{RawValue, to_raw_value};
use shared::{
    db::{
        callbacks::CallBack,
        queue::{Capacity, Cursor, Report},
    },
    domain::{Deadline, ErrorCode, JobError, Lease, Outcome, Status, Verdict},
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    buyers::NEWEST,
    record::{Answer, BUSY, Done, Moment, Run, Said, keep, micros},
    stage::Actor,
};
use crate::life::{lane::KINDS, races::soon};

/// A lease that no machine is slow enough to lose.
pub const LONG: Duration = Duration::from_secs(600);
/// One that is lost as often as not.
const SHORT: Duration = Duration::from_millis(150);

/// How many copies of leases there are before the first of them is reported.
const LATE: usize = 30;

/// What is said from outside.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    Progress,
    Done,
    Err,
    Final,
    Reject,
}

fn run(lease: &Lease) -> Run {
    Run { job: lease.job_id, token: lease.lease_token }
}

/// One statement settles a job once: the last run of each.
fn newest(leases: Vec<Lease>) -> Vec<Lease> {
    let mut newest: Vec<Lease> = Vec::new();
    for lease in leases {
        match newest.iter_mut().find(|other| other.job_id == lease.job_id) {
            Some(other) if other.lease_token < lease.lease_token => *other = lease,
            Some(_) => {}
            None => newest.push(lease),
        }
    }
    newest
}

fn error(code: ErrorCode) -> JobError {
    JobError::new(code, "no")
}

fn output(by: &str, token: i64) -> Box<RawValue> {
    to_raw_value(&format!("{by} {token}")).expect("JSON")
}

/// A verdict as the record has it.
fn said(lease: &Lease, verdict: &Verdict) -> Said {
    let (word, delay) = match verdict {
        Verdict::Complete { .. } => ("complete", None),
        Verdict::Retry { delay, .. } => ("retry", Some(delay)),
        Verdict::Snooze { delay, .. } => ("snooze", Some(delay)),
        Verdict::Yield => ("yield", None),
        Verdict::Wait { within } => ("wait", Some(within)),
        Verdict::Crash { delay, .. } => ("crash", Some(delay)),
        Verdict::Fail(_) => ("fail", None),
        Verdict::Reject(_) => ("reject", None),
        Verdict::Cancel => ("cancel", None),
        Verdict::Return => ("return", None),
    };
    let (output, used) = match verdict {
        Verdict::Complete { output, used } => (Some(output.get().to_owned()), *used),
        _ => (None, None),
    };
    Said { run: run(lease), word, used, delay: delay.map_or(0, |delay| micros(*delay)), output }
}

impl Actor {
    pub async fn works(&mut self) {
        let mut later = Vec::new();
        let mut told = Vec::new();
        while self.history().goes_on() {
            if self.one_in(6) {
                self.rescue().await;
            }
            let lease = if self.one_in(5) { SHORT } else { LONG };
            let limit = 10 + self.dice.below(30);
            let leases = self.claim(limit, lease).await;
            self.pause(8).await;
            if self.one_in(2) {
                told = self.check_in(&leases).await;
            }
            if lease == SHORT && self.one_in(4) {
                tokio::time::sleep(SHORT).await;
            }
            let mut batch = Vec::new();
            for lease in leases {
                if lease.lasts <= SHORT && self.one_in(4) {
                    continue; // it dies, and is never heard of again
                }
                if self.one_in(4) {
                    keep(&mut self.history().board().copies, lease.clone(), NEWEST);
                }
                if self.one_in(8) { later.push(lease) } else { batch.push(lease) }
            }
            if self.one_in(3) {
                batch.append(&mut later);
            }
            // Late: of as many jobs as not another run has begun by then.
            for _ in 0..3 {
                let mut board = self.history().board();
                if board.copies.len() > LATE {
                    batch.extend(board.copies.pop_front());
                }
            }
            {
                // Whoever touches these meets the statement that settles them.
                let mut board = self.history().board();
                board.settling = batch.iter().map(run).collect();
            }
            self.pause(5).await;
            self.settle(batch, &told).await;
        }
        self.complete(later).await;
    }

    /// Answers how many were taken back.
    pub async fn rescue(&self) -> usize {
        let began = self.history().now();
        let rescued = self.db.rescue(100, &[], soon()).await.map(|(rescued, _)| rescued);
        let Answer::Made(rescued) = self.history().sort((self.name, None), &[], false, rescued) else {
            return 0;
        };
        let jobs: Vec<(Uuid, Status)> =
            rescued.iter().filter_map(|job| Some((job.job_id, job.status?))).collect();
        let count = jobs.len();
        self.history().note(self.name, began, Done::Rescue { jobs });
        count
    }

    pub async fn claim(&self, limit: usize, lease: Duration) -> Vec<Lease> {
        let hour = Duration::from_secs(3_600);
        let kinds = KINDS.map(|kind| kind.name);
        let capacity = Capacity {
            limit,
            named: &[],
            woken: false,
            rust_kinds: &kinds,
            http: false,
            budget: hour,
            lease,
        };
        let began = self.history().now();
        let claimed = self.db.claim(capacity, &mut Cursor::default(), soon()).await;
        let Answer::Made(claimed) = self.history().sort((self.name, None), &[], false, claimed) else {
            return vec![];
        };
        let runs: Vec<Run> = claimed.leases.iter().map(run).collect();
        let lasts = claimed.leases.iter().map(|lease| micros(lease.lasts)).min().unwrap_or(0);
        {
            let mut board = self.history().board();
            for run in &runs {
                keep(&mut board.runs, *run, NEWEST);
            }
        }
        self.history().note(self.name, began, Done::Claim { runs, lasts });
        claimed.leases
    }

    /// Answers the jobs that are to stop.
    async fn check_in(&mut self, leases: &[Lease]) -> Vec<Uuid> {
        let mut reports = Vec::new();
        for lease in leases {
            let (percent, checkpoint) = match self.dice.below(3) {
                0 => (Some(1), Some(to_raw_value(&lease.lease_token).expect("JSON"))),
                1 => (Some(2), None),
                _ => (None, None),
            };
            let (job_id, lease_token) = (lease.job_id, lease.lease_token);
            reports.push(Report { job_id, lease_token, percent, message: None, checkpoint });
        }
        let began = self.history().now();
        let told = self.db.check_in(&reports, soon()).await.map(|checked_in| checked_in.to_cancel);
        let Answer::Made(told) = self.history().sort((self.name, None), &[], false, told) else {
            return vec![];
        };
        let runs = leases.iter().map(run).collect();
        self.history().note(self.name, began, Done::CheckIn { runs, told: told.clone() });
        told
    }

    fn verdict(&mut self, lease: &Lease, told: &[Uuid]) -> Verdict {
        let moment = Duration::from_millis(self.dice.below(60) as u64);
        let outcome = match self.dice.below(20) {
            _ if told.contains(&lease.job_id) && !self.one_in(4) => Outcome::Canceled,
            0..=7 => {
                let used = self.dice.pick(&[None, Some(0), Some(4), Some(50)]).flatten();
                Outcome::Done { output: output(self.name, lease.lease_token), used }
            }
            8..=9 => Outcome::Err { error: error(ErrorCode::HandlerError), retry_after: Some(moment) },
            10 => Outcome::Final(error(ErrorCode::HandlerError)),
            11 => Outcome::Final(error(ErrorCode::InvalidInput)),
            12 => Outcome::TimedOut(error(ErrorCode::TimedOut)),
            13 => Outcome::NotStarted,
            14 => Outcome::Yield,
            // Not before a second, as the worker has it: shorter here.
            15 => return Verdict::Snooze { delay: moment, error: None },
            16 => Outcome::Wait { within: Duration::from_millis(100) },
            _ => Outcome::Wait { within: LONG },
        };
        lease.settle(outcome, 1.0)
    }

    async fn settle(&mut self, leases: Vec<Lease>, told: &[Uuid]) {
        let mut verdicts: Vec<(Lease, Verdict)> = Vec::new();
        for lease in newest(leases) {
            let verdict = self.verdict(&lease, told);
            verdicts.push((lease, verdict));
        }
        if verdicts.is_empty() {
            return;
        }
        // Who does not wait for the answer says all of it again.
        if self.one_in(20) {
            let moment = Duration::from_micros(1_000 + self.dice.below(8_000) as u64);
            self.record(&verdicts, None, Deadline::after(moment), true).await;
        }
        if !self.one_in(4) {
            // One of the runs says how far it is in a transaction that is open when the statement comes to its job.
            let touched = run(&verdicts[self.dice.below(verdicts.len() as u64)].0);
            let (hold, held) = (Duration::from_millis(8) + self.moment(12), Notify::new());
            let settling = async {
                held.notified().await;
                self.record_all(verdicts).await;
            };
            tokio::join!(self.hold(touched, hold, &held), settling);
        } else {
            self.record_all(verdicts).await;
        }
    }

    /// Says it until all of it is answered, as the worker does: first all at once, then without what somebody holds.
    async fn record_all(&self, mut verdicts: Vec<(Lease, Verdict)>) {
        let mut patience = None;
        while !verdicts.is_empty() && self.history().finding().is_none() {
            let stand = self.record(&verdicts, patience, soon(), false).await;
            patience = Some(Duration::from_millis(200));
            if let Answer::Made(stand) = stand {
                verdicts.retain(|(lease, _)| stand.get(&lease.job_id) == Some(&None));
            }
        }
    }

    /// Whatever it was, it is done.
    pub async fn complete(&mut self, leases: Vec<Lease>) {
        let done = |lease: Lease| {
            let verdict = Verdict::Complete { output: output(self.name, lease.lease_token), used: None };
            (lease, verdict)
        };
        let verdicts: Vec<(Lease, Verdict)> = newest(leases).into_iter().map(done).collect();
        self.record_all(verdicts).await;
    }

    async fn record(
        &self,
        verdicts: &[(Lease, Verdict)],
        patience: Option<Duration>,
        deadline: Deadline,
        impatient: bool,
    ) -> Answer<HashMap<Uuid, Option<Status>>> {
        let said: Vec<Said> = verdicts.iter().map(|(lease, verdict)| said(lease, verdict)).collect();
        let began = self.history().now();
        let settled = match patience {
            None => self.db.settle(verdicts, deadline).await,
            Some(patience) => self.db.settle_within_reach(verdicts, patience, deadline).await,
        };
        let settled = settled.map(|settled| {
            let settled_jobs = settled.jobs.into_iter().map(|(job, status)| (job, Some(status)));
            settled_jobs.chain(settled.out_of_reach.into_iter().map(|job| (job, None))).collect()
        });
        let stand: Answer<HashMap<_, _>> =
            self.history().sort((self.name, None), &[BUSY], impatient, settled);
        if let Answer::Made(stand) = &stand {
            let mut board = self.history().board();
            for said in &said {
                match stand.get(&said.run.job) {
                    Some(Some(Status::Running)) => keep(&mut board.waiting, said.run, NEWEST),
                    Some(Some(status)) if status.is_final() => keep(&mut board.ended, said.run.job, NEWEST),
                    _ => {}
                }
            }
        }
        self.history().note(self.name, began, Done::Settle { said, stand: stand.clone() });
        stand
    }

    pub async fn calls_back(&mut self) {
        while self.history().goes_on() {
            let (runs, waiting, scripted) = {
                let board = self.history().board();
                let listed =
                    |runs: &std::collections::VecDeque<Run>| runs.iter().copied().collect::<Vec<_>>();
                (
                    listed(&board.runs),
                    listed(&board.waiting),
                    board.scripted.iter().copied().collect::<Vec<_>>(),
                )
            };
            let ends = [Call::Done, Call::Done, Call::Err, Call::Final, Call::Reject];
            let (run, call) = match self.dice.below(10) {
                0..=2 => (self.dice.pick(&waiting), self.dice.pick(&ends).expect("one")),
                3 if self.one_in(3) => (self.dice.pick(&runs), self.dice.pick(&ends).expect("one")),
                // The worker's process keeps its tokens to itself: they are small.
                4 => {
                    let token = 1 + i64::from(self.one_in(3));
                    (self.dice.pick(&scripted).map(|job| Run { job, token }), Call::Progress)
                }
                _ => (self.dice.pick(&runs), Call::Progress),
            };
            if let Some(run) = run {
                self.call_back(run, call).await;
            }
            self.pause(2).await;
        }
    }

    pub async fn call_back(&mut self, run: Run, call: Call) -> Answer<Status> {
        let mut used = None;
        let (word, called) = match call {
            Call::Progress => {
                ("progress", CallBack::Progress { percent: Some(7), message: Some("…".into()) })
            }
            Call::Done => {
                used = self.dice.pick(&[None, Some(3)]).flatten();
                ("complete", CallBack::Done { output: output(self.name, run.token), used })
            }
            Call::Err => ("retry", CallBack::Err(error(ErrorCode::TargetError))),
            Call::Final => ("fail", CallBack::Final(error(ErrorCode::TargetError))),
            Call::Reject => ("reject", CallBack::Final(error(ErrorCode::InvalidInput))),
        };
        let output = match &called {
            CallBack::Done { output, .. } => Some(output.get().to_owned()),
            _ => None,
        };
        let began = self.history().now();
        let stand = self.db.call_back(run.job, run.token, &called, soon()).await.map(|stand| stand.status);
        let rules = ["callback_used", "callback_expired", BUSY];
        let stand = self.history().sort((self.name, Some(run.job)), &rules, false, stand);
        let said = Said { run, word, used, delay: 0, output };
        self.history().note(self.name, began, Done::CallBack { said, stand: stand.clone() });
        stand
    }

    pub fn note_progress(&self, began: Moment, run: Run, done: Answer<Vec<Uuid>>) {
        let stand = match done {
            Answer::Made(_) => Answer::Made(Status::Running),
            Answer::Refused(word) => Answer::Refused(word),
            Answer::Unknown => Answer::Unknown,
        };
        let said = Said { run, word: "progress", used: None, delay: 0, output: None };
        self.history().note(self.name, began, Done::CallBack { said, stand });
    }

    /// The worker's process, tick after tick.
    pub async fn ticks(&mut self) {
        let worker = self.stage.bench.scripted_worker();
        while self.history().goes_on() {
            self.tick(&worker).await;
            self.pause(50).await;
        }
    }
}
