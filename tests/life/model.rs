//! A plain model of the promise, written from docs/LIFE_OF_A_JOB.md: no SQL, no queue, one list of jobs and two numbers for
//! each account. What the product does is held against it (`sequences.rs`).

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// A kind as its buyer knows it.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub name: &'static str,
    pub price: i64,
    pub metered: bool,
    pub cancel_costs: bool,
    pub cancel_refused: bool,
    pub input_error_costs: bool,
    pub max_attempts: u32,
    pub max_crashes: u32,
}

/// Seconds: after an error, until a job's life is over, and how long a worker may take.
pub const BACKOFF: i64 = 100;
pub const LIFE: i64 = 2_000;
pub const LEASE: i64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Queued { due: i64 },
    Running { run: i64, until: i64, told_to_stop: bool },
    Succeeded,
    Failed,
    Canceled,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub account: usize,
    pub terms: Terms,
    pub stand: Stand,
    pub runs: i64,
    pub errors: u32,
    pub crashes: u32,
    pub life_ends: i64,
    pub captured: i64,
    pub refunded: bool,
    pub retried: bool,
    /// The step in which it became final.
    pub finished_in: usize,
}

/// What a worker says of a run.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    Done { used: Option<i64> },
    Error,
    NotMyFault,
    Never,
    BadInput,
    OutOfTime,
    Stopped,
    NotStarted,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    NoCredits,
    NotNow,
}

#[derive(Debug, Default)]
pub struct Model {
    pub now: i64,
    pub available: Vec<i64>,
    pub held: Vec<i64>,
    pub jobs: BTreeMap<Uuid, Job>,
    pub step: usize,
}

impl Model {
    pub fn new(credits: &[i64]) -> Self {
        Self { available: credits.to_vec(), held: vec![0; credits.len()], ..Self::default() }
    }

    /// One charge per accepted job, and none for one that is not.
    pub fn can_buy(&self, account: usize, terms: &Terms) -> bool {
        self.available[account] >= terms.price
    }

    pub fn buy(&mut self, id: Uuid, account: usize, terms: Terms) {
        self.available[account] -= terms.price;
        self.held[account] += terms.price;
        let job = Job {
            account,
            terms,
            stand: Stand::Queued { due: self.now },
            runs: 0,
            errors: 0,
            crashes: 0,
            life_ends: self.now + LIFE,
            captured: 0,
            refunded: false,
            retried: false,
            finished_in: 0,
        };
        assert!(self.jobs.insert(id, job).is_none(), "an id is new");
    }

    /// A final status: the hold is closed, once.
    fn finish(&mut self, id: Uuid, stand: Stand, captured: i64) {
        let step = self.step;
        let job = self.jobs.get_mut(&id).expect("a job");
        assert!(matches!(job.stand, Stand::Queued { .. } | Stand::Running { .. }), "final once");
        (job.stand, job.captured, job.finished_in) = (stand, captured, step);
        self.held[job.account] -= job.terms.price;
        self.available[job.account] += job.terms.price - captured;
    }

    fn cancel_price(&self, id: Uuid) -> i64 {
        let terms = &self.jobs[&id].terms;
        if terms.cancel_costs { terms.price } else { 0 }
    }

    /// Takes back what has lapsed: a life that is over, a worker that never reported.
    pub fn take_back(&mut self) {
        let ids: Vec<Uuid> = self.jobs.keys().copied().collect();
        for id in ids {
            let job = &self.jobs[&id];
            let over = job.life_ends <= self.now;
            match job.stand {
                Stand::Queued { .. } if over => self.finish(id, Stand::Failed, 0),
                Stand::Running { until, told_to_stop, .. } if until <= self.now => {
                    if told_to_stop {
                        self.finish(id, Stand::Canceled, self.cancel_price(id));
                    } else if over {
                        self.finish(id, Stand::Failed, 0);
                    } else {
                        self.crash(id, self.now);
                    }
                }
                _ => {}
            }
        }
    }

    fn crash(&mut self, id: Uuid, due: i64) {
        let job = self.jobs.get_mut(&id).expect("a job");
        job.crashes += 1;
        if job.crashes >= job.terms.max_crashes {
            self.finish(id, Stand::Failed, 0);
        } else {
            job.stand = Stand::Queued { due };
        }
    }

    /// Whatever is due and alive starts, of these kinds.
    pub fn start(&mut self, kinds: &[&str]) -> BTreeSet<(Uuid, i64)> {
        let mut started = BTreeSet::new();
        for (id, job) in &mut self.jobs {
            let Stand::Queued { due } = job.stand else { continue };
            if due <= self.now && job.life_ends > self.now && kinds.contains(&job.terms.name) {
                job.runs += 1;
                let until = (self.now + LEASE).min(job.life_ends);
                job.stand = Stand::Running { run: job.runs, until, told_to_stop: false };
                started.insert((*id, job.runs));
            }
        }
        started
    }

    /// What a worker says counts as long as its lease does. Answers whether it did.
    pub fn report(&mut self, id: Uuid, run: i64, said: Said) -> bool {
        let job = self.jobs[&id].clone();
        let Stand::Running { run: current, until, told_to_stop } = job.stand else { return false };
        if run != current || until <= self.now {
            return false;
        }
        let price = job.terms.price;
        let again = |model: &mut Self, due| {
            if told_to_stop {
                model.finish(id, Stand::Canceled, model.cancel_price(id));
            } else {
                model.jobs.get_mut(&id).expect("a job").stand = Stand::Queued { due };
            }
        };
        match said {
            Said::Done { used } => {
                let captured = if job.terms.metered { used.unwrap_or(price).clamp(0, price) } else { price };
                self.finish(id, Stand::Succeeded, captured);
            }
            Said::Never => self.finish(id, Stand::Failed, 0),
            Said::BadInput => {
                let captured = if job.terms.input_error_costs { price } else { 0 };
                self.finish(id, Stand::Failed, captured);
            }
            Said::Error if job.errors + 1 >= job.terms.max_attempts => self.finish(id, Stand::Failed, 0),
            Said::Error => {
                self.jobs.get_mut(&id).expect("a job").errors += 1;
                again(self, self.now + BACKOFF);
            }
            Said::NotMyFault => again(self, self.now + BACKOFF),
            Said::OutOfTime if told_to_stop => self.finish(id, Stand::Canceled, self.cancel_price(id)),
            Said::OutOfTime => self.crash(id, self.now + BACKOFF),
            // Nothing was done for it, so nothing is charged.
            Said::NotStarted if told_to_stop => self.finish(id, Stand::Canceled, 0),
            Said::NotStarted => again(self, self.now),
            Said::Stopped if told_to_stop => self.finish(id, Stand::Canceled, self.cancel_price(id)),
            Said::Stopped => return false,
        }
        true
    }

    pub fn cancel(&mut self, id: Uuid) -> Result<(), Refused> {
        match self.jobs[&id].stand {
            Stand::Queued { .. } => self.finish(id, Stand::Canceled, 0),
            Stand::Running { .. } if self.jobs[&id].terms.cancel_refused => return Err(Refused::NotNow),
            Stand::Running { run, until, .. } => {
                self.jobs.get_mut(&id).expect("a job").stand =
                    Stand::Running { run, until, told_to_stop: true };
            }
            Stand::Succeeded | Stand::Failed | Stand::Canceled => return Err(Refused::NotNow),
        }
        Ok(())
    }

    /// Whether a job may be bought once more now.
    pub fn can_retry(&self, id: Uuid) -> Result<(), Refused> {
        let job = &self.jobs[&id];
        if job.retried || !matches!(job.stand, Stand::Failed | Stand::Canceled) {
            return Err(Refused::NotNow);
        }
        if self.can_buy(job.account, &job.terms) { Ok(()) } else { Err(Refused::NoCredits) }
    }

    pub fn retry(&mut self, id: Uuid, new: Uuid) {
        let old = self.jobs.get_mut(&id).expect("a job");
        old.retried = true;
        let (account, terms) = (old.account, old.terms);
        self.buy(new, account, terms);
    }

    /// The dead letters of a kind that were not retried yet.
    pub fn dead_letters(&self, kind: &str) -> BTreeSet<Uuid> {
        let dead = |job: &Job| job.stand == Stand::Failed && !job.retried && job.terms.name == kind;
        self.jobs.iter().filter(|(_, job)| dead(job)).map(|(id, _)| *id).collect()
    }

    /// At most once, what was captured.
    pub fn refund(&mut self, id: Uuid) -> Result<i64, Refused> {
        let job = self.jobs.get_mut(&id).expect("a job");
        if job.captured == 0 || job.refunded {
            return Err(Refused::NotNow);
        }
        job.refunded = true;
        self.available[job.account] += job.captured;
        Ok(job.captured)
    }
}
