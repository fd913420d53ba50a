//! Random sequences of what can happen to jobs, against the database and against the model of the promise: no divergence,
//! and the audit clean after each. `property.rs` says how many.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::value::{RawValue, to_raw_value};
use shared::{
    db::{
        DbError,
        jobs::{JobOptions, JobWebhook, NewJob},
        life::{FailedFilter, RedrivePace, Redriven},
        queue::{Capacity, Cursor, Report},
        webhooks::Delivery,
    },
    domain::{Deadline, ErrorCode, JobError, Lease, Outcome},
};
use uuid::Uuid;

use super::{
    lane::{CREDITS, Dice, KINDS, Lane},
    model::{LEASE, Model, Refused, SNOOZE, Said, Stand, Terms},
    outbox::{EVENTS, Hook},
};

const STEPS: u64 = 32;

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub fn refused<T>(result: Result<T, DbError>) -> Result<T, Refused> {
    match result {
        Ok(value) => Ok(value),
        Err(DbError::Refused { status: 402, .. }) => Err(Refused::NoCredits),
        Err(DbError::Refused { code, .. }) if code == "callback_expired" => Err(Refused::TooLate),
        Err(DbError::Refused { status: 409, .. }) => Err(Refused::NotNow),
        Err(error) => panic!("{error}"),
    }
}

/// Who paid for a key, and for what.
type Bought = (usize, Terms, JobOptions, Uuid);

pub struct Sequence<'a> {
    pub lane: &'a Lane,
    pub dice: Dice,
    pub accounts: [Uuid; 2],
    pub model: Model,
    leases: Vec<Lease>,
    /// Every token that was ever handed out, and for which job.
    pub runs: Vec<(Uuid, i64)>,
    /// What workers have taken to send.
    pub sending: Vec<Delivery>,
    keys: BTreeMap<String, Bought>,
    touched: Vec<Uuid>,
    pub trace: Vec<String>,
}

/// Runs one sequence; answers what it had come to, if the database and the model went apart, or the audit found something.
pub async fn divergence(lane: &Lane, seed: u64) -> Option<String> {
    let mut sequence = Sequence {
        lane,
        dice: Dice(seed),
        accounts: lane.begin().await,
        model: Model::new(&CREDITS),
        leases: Vec::new(),
        runs: Vec::new(),
        sending: Vec::new(),
        keys: BTreeMap::new(),
        touched: Vec::new(),
        trace: Vec::new(),
    };
    let all = AssertUnwindSafe(async {
        if sequence.dice.below(2) == 0 {
            sequence.set_webhook().await;
        }
        for _ in 0..STEPS {
            sequence.step().await;
        }
        // What has lapsed may stay for two ticks; then the audit minds.
        sequence.tick().await;
        sequence.compare().await;
    });
    match all.catch_unwind().await {
        Ok(()) => None,
        Err(_) => Some(format!("seed {seed}:\n{}", sequence.trace.join("\n"))),
    }
}

impl Sequence<'_> {
    /// Any job; as often as not one to which something was done before.
    fn job(&mut self) -> Option<Uuid> {
        let all: Vec<Uuid> = self.model.jobs.keys().copied().collect();
        let again = if self.dice.below(2) == 0 { self.dice.pick(&self.touched) } else { None };
        let job = again.or_else(|| self.dice.pick(&all))?;
        self.touched.push(job);
        Some(job)
    }

    /// One step. Panics where the database and the model go apart.
    async fn step(&mut self) {
        self.model.step += 1;
        match self.dice.below(29) {
            0..=4 => self.enqueue().await,
            5..=7 => self.tick().await,
            8..=12 => self.report().await,
            13..=15 => self.call_back().await,
            16..=17 => self.time_passes().await,
            18..=19 => self.cancel().await,
            20 => self.retry().await,
            21 if self.dice.below(2) == 0 => self.redrive().await,
            21 => self.replay().await,
            22 => self.refund().await,
            23 => self.set_webhook().await,
            24..=25 => self.take_messages().await,
            26..=27 => self.record_messages().await,
            _ => self.check_in().await,
        }
    }

    async fn buy(
        &self,
        account: usize,
        terms: &Terms,
        options: &JobOptions,
        key: &str,
    ) -> Result<(Uuid, bool), Refused> {
        let job = NewJob { kind: terms.name, input: RawValue::NULL, priority: 0, run_at: None, options };
        let bought = self.lane.db.enqueue(self.accounts[account], job, Some(key), soon()).await;
        refused(bought).map(|bought| (bought.job.id, bought.replayed))
    }

    async fn enqueue(&mut self) {
        let (account, terms) = (self.dice.below(2), KINDS[self.dice.below(4)]);
        let hook = if self.dice.below(3) == 0 { Some(self.hook()) } else { None };
        let webhook = hook.as_ref().map(|hook: &Hook| JobWebhook {
            url: hook.url.to_owned(),
            // These three unless it says so.
            events: (hook.events != EVENTS[1..])
                .then(|| hook.events.iter().map(ToString::to_string).collect()),
        });
        let options = JobOptions { webhook, ..JobOptions::default() };
        let key = format!("k{}", self.trace.len());
        let can = self.model.can_buy(account, &terms);
        let bought = self.buy(account, &terms, &options, &key).await;
        self.trace.push(format!("enqueue {account} {} {hook:?} {bought:?}", terms.name));
        match bought {
            Ok((id, replayed)) => {
                assert!(can && !replayed);
                self.model.buy(id, account, terms, hook);
                self.keys.insert(key, (account, terms, options, id));
            }
            Err(refused) => assert_eq!((refused, can), (Refused::NoCredits, false)),
        }
    }

    async fn replay(&mut self) {
        let keys: Vec<String> = self.keys.keys().cloned().collect();
        let Some(key) = self.dice.pick(&keys) else { return };
        let (account, terms, options, id) = &self.keys[&key];
        self.trace.push(format!("replay {key}"));
        assert_eq!(self.buy(*account, terms, options, &key).await, Ok((*id, true)));
    }

    /// A tick: takes back what has lapsed, then claims what is due of some kinds.
    async fn tick(&mut self) {
        self.lane.db.rescue(1_000, &[], soon()).await.unwrap();
        self.model.take_back();
        let kinds: Vec<&str> =
            KINDS.iter().map(|kind| kind.name).filter(|_| self.dice.below(4) > 0).collect();
        let capacity = Capacity {
            limit: 100,
            named: &[],
            woken: false,
            rust_kinds: &kinds,
            http: false,
            budget: Duration::from_secs(60),
            lease: Duration::from_secs(LEASE.unsigned_abs()),
        };
        let leases = self.lane.db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases;
        let found = |lease: &Lease| (lease.job_id, lease.lease_token, saved(lease));
        let claimed: BTreeSet<(Uuid, i64, Option<i64>)> = leases.iter().map(found).collect();
        self.trace.push(format!("tick {kinds:?} {claimed:?}"));
        assert_eq!(claimed, self.model.start(&kinds));
        self.runs.extend(leases.iter().map(|lease| (lease.job_id, lease.lease_token)));
        self.leases.extend(leases);
        if self.dice.below(2) == 0 {
            self.check_in().await;
        }
    }

    /// Workers save where they are, and hear of what is to be canceled, and of nothing else.
    async fn check_in(&mut self) {
        let mut reports = Vec::new();
        for lease in &mut self.leases {
            let mut checkpoint = None;
            if self.dice.below(3) == 0 {
                let state = i64::try_from(self.dice.below(1_000)).expect("small");
                self.trace.push(format!("{} run {} saves {state}", lease.job_id, lease.lease_token));
                self.model.save(lease.job_id, lease.lease_token, state);
                lease.checkpoint = Some(to_raw_value(&state).expect("a number"));
                checkpoint.clone_from(&lease.checkpoint);
            }
            let (job_id, lease_token) = (lease.job_id, lease.lease_token);
            reports.push(Report { job_id, lease_token, percent: Some(1), message: None, checkpoint });
        }
        let told: BTreeSet<Uuid> =
            self.lane.db.check_in(&reports, soon()).await.unwrap().to_cancel.into_iter().collect();
        let to_stop = |lease: &&Lease| {
            let stand = self.model.jobs[&lease.job_id].stand;
            matches!(stand, Stand::Running { run, told_to_stop: true, .. } if run == lease.lease_token)
        };
        assert_eq!(told, self.leases.iter().filter(to_stop).map(|lease| lease.job_id).collect());
    }

    /// Some workers report at once: in time, late, twice; some never do.
    async fn report(&mut self) {
        let mut verdicts = Vec::new();
        let mut counts = BTreeSet::new();
        for _ in 0..=self.dice.below(3) {
            let over = |lease: &&Lease| {
                let stand = self.model.jobs[&lease.job_id].stand;
                matches!(stand, Stand::Running { run, .. } if run != lease.lease_token)
            };
            let over: Vec<Lease> = self.leases.iter().filter(over).cloned().collect();
            let late = if self.dice.below(4) == 0 { self.dice.pick(&over) } else { None };
            let Some(lease) = late.or_else(|| self.dice.pick(&self.leases)) else { break };
            // One statement settles a job once.
            if verdicts.iter().any(|(other, _): &(Lease, _)| other.job_id == lease.job_id) {
                continue;
            }
            // Most are heard of once; a few report again.
            if self.dice.below(4) > 0 {
                self.leases
                    .retain(|other| (other.job_id, other.lease_token) != (lease.job_id, lease.lease_token));
            }
            let (said, outcome) = self.end_of_a_run();
            self.trace.push(format!("report {} run {} {said:?}", lease.job_id, lease.lease_token));
            if self.model.report(lease.job_id, lease.lease_token, said, saved(&lease)) {
                counts.insert(lease.job_id);
            }
            let verdict = lease.settle(outcome, 1.0);
            verdicts.push((lease, verdict));
        }
        let settled = self.lane.db.settle(&verdicts, soon()).await.unwrap();
        assert_eq!(settled.jobs.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), counts);
    }

    fn end_of_a_run(&mut self) -> (Said, Outcome) {
        let error = |code| JobError::new(code, "no");
        match self.dice.below(17) {
            0..=2 => {
                let used = self.dice.pick(&[None, Some(0), Some(4), Some(9), Some(50)]).flatten();
                (Said::Done { used }, Outcome::Done { output: RawValue::NULL.to_owned(), used })
            }
            3..=4 => (Said::Error, Outcome::Err { error: error(ErrorCode::HandlerError), retry_after: None }),
            5 => {
                let away = error(ErrorCode::Unavailable);
                (Said::NotMyFault, Outcome::Unavailable { error: away, retry_after: None })
            }
            6 => (Said::Never, Outcome::Final(error(ErrorCode::HandlerError))),
            7 => (Said::BadInput, Outcome::Final(error(ErrorCode::InvalidInput))),
            8 => (Said::OutOfTime, Outcome::TimedOut(error(ErrorCode::TimedOut))),
            9 => (Said::Stopped, Outcome::Canceled),
            10 => (Said::NotStarted, Outcome::NotStarted),
            11 => (Said::NothingYet, Outcome::Snooze(Duration::from_secs(SNOOZE.unsigned_abs()))),
            12 => (Said::TimeIsNearlyUp, Outcome::Yield),
            _ => {
                let within = self.dice.pick(&[120, 420, 5_000, 5_000]).expect("one");
                (Said::Wait(within), Outcome::Wait { within: Duration::from_secs(within.unsigned_abs()) })
            }
        }
    }

    /// Workers that are killed meanwhile report no more; those that are not may be late.
    async fn time_passes(&mut self) {
        let seconds = self.dice.pick(&[50, 150, 150, 350, 350, 2_050]).expect("one");
        self.trace.push(format!("{seconds} s pass"));
        self.lane.bench.wait(seconds).await;
        self.model.now += i64::from(seconds);
        let dice = &mut self.dice;
        self.leases.retain(|_| dice.below(3) > 0);
    }

    async fn cancel(&mut self) {
        let Some(id) = self.job() else { return };
        self.trace.push(format!("cancel {id}"));
        assert_eq!(refused(self.lane.db.cancel(id, None, soon()).await), self.model.cancel(id));
    }

    async fn retry(&mut self) {
        let Some(id) = self.job() else { return };
        self.trace.push(format!("retry {id}"));
        let retried = refused(self.lane.db.retry(id, None, soon()).await);
        assert_eq!(retried.as_ref().err(), self.model.can_retry(id).as_ref().err());
        if let Ok(retried) = retried {
            self.model.retry(id, retried.job_id);
        }
    }

    async fn redrive(&mut self) {
        let kind = KINDS[self.dice.below(4)].name;
        self.trace.push(format!("redrive {kind}"));
        let filter = FailedFilter { kind: Some(kind.to_owned()), ..FailedFilter::default() };
        let pace = RedrivePace { limit: 1_000, per_second: None, delay: 0.0, after: None };
        let redriven = self.lane.db.redrive(&filter, pace, soon()).await.unwrap().jobs;
        assert_eq!(
            redriven.iter().map(|job| job.job_id).collect::<BTreeSet<_>>(),
            self.model.dead_letters(kind)
        );
        let failed_at = |job: &Redriven| self.model.jobs[&job.job_id].finished_in;
        assert!(redriven.is_sorted_by_key(failed_at), "oldest first");
        for job in redriven {
            assert_eq!(job.retried_as.is_some(), self.model.can_retry(job.job_id).is_ok(), "{job:?}");
            if let Some(new) = job.retried_as {
                self.model.retry(job.job_id, new);
            }
        }
    }

    async fn refund(&mut self) {
        let paid: Vec<Uuid> =
            self.model.jobs.iter().filter(|(_, job)| job.captured > 0).map(|(id, _)| *id).collect();
        let one = if self.dice.below(2) == 0 { self.dice.pick(&paid) } else { None };
        let Some(id) = one.or_else(|| self.job()) else { return };
        self.trace.push(format!("refund {id}"));
        let sql = format!("SELECT amount FROM punchcard.refund('{id}')");
        let refunded = match self.lane.bench.admin.query_typed(&sql, &[]).await {
            Ok(rows) => Ok(rows[0].get::<_, i64>(0)),
            Err(error) => {
                assert_eq!(
                    error.code().map(tokio_postgres::error::SqlState::code),
                    Some("PT409"),
                    "{error:?}"
                );
                Err(Refused::NotNow)
            }
        };
        assert_eq!(refunded, self.model.refund(id));
    }
}

fn saved(lease: &Lease) -> Option<i64> {
    lease.checkpoint.as_deref().map(|state| state.get().parse().expect("a number"))
}
