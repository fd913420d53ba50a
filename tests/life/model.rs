//! A plain model of the promise, written from docs/LIFE_OF_A_JOB.md: no SQL, no queue, one list of jobs and two numbers for
//! each account. What the product does is held against it (`sequences.rs`).

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::outbox::{Hook, Outbox};

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
    /// Where whoever is at work outside is told to drop it.
    pub cancel_url: Option<&'static str>,
}

/// Seconds: after an error, until a job's life is over, and how long a worker may take.
pub const BACKOFF: i64 = 100;
pub const LIFE: i64 = 2_000;
pub const LEASE: i64 = 300;
/// What a worker that has nothing to do yet asks for.
pub const SNOOZE: i64 = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Queued {
        due: i64,
    },
    Running {
        run: i64,
        until: i64,
        told_to_stop: bool,
    },
    /// Outside, until somebody calls back.
    Waiting {
        run: i64,
        until: i64,
    },
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
    /// A run of it has ended that did something, or may have: not one whose help was away, or that was handed
    /// back.
    pub has_run: bool,
    pub life_ends: i64,
    pub captured: i64,
    pub refunded: bool,
    pub retried: bool,
    /// What the last run that saved something did.
    pub saved: Option<i64>,
    pub hook: Option<Hook>,
    /// The step in which it became final.
    pub finished_in: usize,
}

impl Job {
    pub fn is_final(&self) -> bool {
        matches!(self.stand, Stand::Succeeded | Stand::Failed | Stand::Canceled)
    }

    pub fn status(&self) -> &'static str {
        self.event().trim_start_matches("job.")
    }

    /// What is to be said of it, as it stands.
    fn event(&self) -> &'static str {
        match self.stand {
            Stand::Queued { .. } => "job.queued",
            Stand::Running { .. } | Stand::Waiting { .. } => "job.running",
            Stand::Succeeded => "job.succeeded",
            Stand::Failed => "job.failed",
            Stand::Canceled => "job.canceled",
        }
    }
}

/// What a worker says of a run.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    Done {
        used: Option<i64>,
    },
    Error,
    NotMyFault,
    NothingYet,
    /// Somebody outside calls back, within so long.
    Wait(i64),
    TimeIsNearlyUp,
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
    /// A call back of a run that is over, or in time no more.
    TooLate,
}

#[derive(Debug, Default)]
pub struct Model {
    pub now: i64,
    pub available: Vec<i64>,
    pub held: Vec<i64>,
    pub jobs: BTreeMap<Uuid, Job>,
    pub outbox: Outbox,
    pub step: usize,
}

impl Model {
    pub fn new(credits: &[i64]) -> Self {
        let outbox = Outbox { hooks: vec![None; credits.len()], ..Outbox::default() };
        Self { available: credits.to_vec(), held: vec![0; credits.len()], outbox, ..Self::default() }
    }

    /// One charge per accepted job, and none for one that is not.
    pub fn can_buy(&self, account: usize, terms: &Terms) -> bool {
        self.available[account] >= terms.price
    }

    pub fn buy(&mut self, id: Uuid, account: usize, terms: Terms, hook: Option<Hook>) {
        self.available[account] -= terms.price;
        self.held[account] += terms.price;
        let job = Job {
            account,
            terms,
            stand: Stand::Queued { due: self.now },
            runs: 0,
            errors: 0,
            crashes: 0,
            has_run: false,
            life_ends: self.now + LIFE,
            captured: 0,
            refunded: false,
            retried: false,
            saved: None,
            hook,
            finished_in: 0,
        };
        assert!(self.jobs.insert(id, job).is_none(), "an id is new");
    }

    /// A final status: the hold is closed, once.
    fn finish(&mut self, id: Uuid, stand: Stand, captured: i64) {
        let step = self.step;
        let job = self.jobs.get_mut(&id).expect("a job");
        assert!(!job.is_final(), "final once");
        (job.stand, job.captured, job.finished_in) = (stand, captured, step);
        self.held[job.account] -= job.terms.price;
        self.available[job.account] += job.terms.price - captured;
        self.outbox.tell(self.now, job.account, id, job.hook.as_ref(), job.event());
    }

    /// The same, and whoever is at work on it outside is told.
    fn drop_outside(&mut self, id: Uuid, stand: Stand, captured: i64) {
        self.finish(id, stand, captured);
        let job = &self.jobs[&id];
        if let Some(url) = job.terms.cancel_url {
            self.outbox.tell_to_drop(self.now, job.account, id, url);
        }
    }

    fn cancel_price(&self, id: Uuid) -> i64 {
        let terms = &self.jobs[&id].terms;
        if terms.cancel_costs { terms.price } else { 0 }
    }

    /// What canceling costs a job that does not run: the same, for what was done in runs before.
    fn cancel_price_between_runs(&self, id: Uuid) -> i64 {
        if self.jobs[&id].has_run { self.cancel_price(id) } else { 0 }
    }

    /// Takes back what has lapsed: a life that is over, a worker that never reported.
    pub fn take_back(&mut self) {
        let ids: Vec<Uuid> = self.jobs.keys().copied().collect();
        for id in ids {
            let job = &self.jobs[&id];
            let over = job.life_ends <= self.now;
            match job.stand {
                Stand::Queued { .. } if over => self.finish(id, Stand::Failed, 0),
                Stand::Waiting { until, .. } if until <= self.now => {
                    self.drop_outside(id, Stand::Failed, 0);
                }
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
        job.has_run = true;
        if job.crashes >= job.terms.max_crashes {
            self.finish(id, Stand::Failed, 0);
        } else {
            job.stand = Stand::Queued { due };
        }
    }

    /// Whatever is due and alive starts, of these kinds, where the last run left it.
    pub fn start(&mut self, kinds: &[&str]) -> BTreeSet<(Uuid, i64, Option<i64>)> {
        let mut started = BTreeSet::new();
        for (id, job) in &mut self.jobs {
            let Stand::Queued { due } = job.stand else { continue };
            if due <= self.now && job.life_ends > self.now && kinds.contains(&job.terms.name) {
                job.runs += 1;
                let until = (self.now + LEASE).min(job.life_ends);
                job.stand = Stand::Running { run: job.runs, until, told_to_stop: false };
                started.insert((*id, job.runs, job.saved));
                self.outbox.tell(self.now, job.account, *id, job.hook.as_ref(), job.event());
            }
        }
        started
    }

    /// Whether a worker's lease of this run lasts.
    fn is_leased(&self, id: Uuid, run: i64) -> bool {
        matches!(self.jobs[&id].stand, Stand::Running { run: now, until, .. } if now == run && until > self.now)
    }

    /// A worker saves where it is.
    pub fn save(&mut self, id: Uuid, run: i64, state: i64) {
        if self.is_leased(id, run) {
            self.jobs.get_mut(&id).expect("a job").saved = Some(state);
        }
    }

    /// What a worker says, and has saved, counts as long as its lease does. Answers whether it did.
    pub fn report(&mut self, id: Uuid, run: i64, said: Said, saved: Option<i64>) -> bool {
        let told_to_stop = matches!(self.jobs[&id].stand, Stand::Running { told_to_stop: true, .. });
        if !self.is_leased(id, run) || (matches!(said, Said::Stopped) && !told_to_stop) {
            return false;
        }
        self.end_run(id, run, said);
        let job = self.jobs.get_mut(&id).expect("a job");
        job.saved = saved.or(job.saved);
        true
    }

    fn end_run(&mut self, id: Uuid, run: i64, said: Said) {
        let Job { terms, stand, errors, life_ends, .. } = self.jobs[&id];
        let told_to_stop = matches!(stand, Stand::Running { told_to_stop: true, .. });
        let again = |model: &mut Self, due| {
            if told_to_stop {
                model.finish(id, Stand::Canceled, model.cancel_price(id));
            } else {
                let job = model.jobs.get_mut(&id).expect("a job");
                job.stand = Stand::Queued { due };
                job.has_run |= !matches!(said, Said::NotMyFault | Said::NotStarted);
            }
        };
        match said {
            Said::Done { used } => {
                let captured = match used {
                    Some(used) if terms.metered => used.clamp(0, terms.price),
                    _ => terms.price,
                };
                self.finish(id, Stand::Succeeded, captured);
            }
            Said::Never => self.finish(id, Stand::Failed, 0),
            Said::BadInput => {
                let captured = if terms.input_error_costs { terms.price } else { 0 };
                self.finish(id, Stand::Failed, captured);
            }
            Said::Error if errors + 1 >= terms.max_attempts => self.finish(id, Stand::Failed, 0),
            Said::Error => {
                self.jobs.get_mut(&id).expect("a job").errors += 1;
                again(self, self.now + BACKOFF);
            }
            Said::NotMyFault => again(self, self.now + BACKOFF),
            Said::NothingYet => again(self, self.now + SNOOZE),
            Said::TimeIsNearlyUp => again(self, self.now),
            Said::Wait(_) if told_to_stop => self.drop_outside(id, Stand::Canceled, self.cancel_price(id)),
            Said::Wait(within) => {
                let until = (self.now + within).min(life_ends);
                self.jobs.get_mut(&id).expect("a job").stand = Stand::Waiting { run, until };
            }
            Said::OutOfTime if told_to_stop => self.finish(id, Stand::Canceled, self.cancel_price(id)),
            Said::OutOfTime => self.crash(id, self.now + BACKOFF),
            // Nothing was done for it now.
            Said::NotStarted if told_to_stop => {
                self.finish(id, Stand::Canceled, self.cancel_price_between_runs(id));
            }
            Said::NotStarted => again(self, self.now),
            Said::Stopped => self.finish(id, Stand::Canceled, self.cancel_price(id)),
        }
    }

    /// What somebody outside says of a run, also before its worker has said that it waits; nothing: it goes on. Answers how the
    /// job stands then, and whether they hear that it was to be canceled.
    pub fn call_back(
        &mut self,
        id: Uuid,
        run: i64,
        said: Option<Said>,
    ) -> Result<(&'static str, bool), Refused> {
        let job = &self.jobs[&id];
        if job.is_final() {
            return Err(Refused::NotNow);
        }
        let told_to_stop = matches!(job.stand, Stand::Running { told_to_stop: true, .. });
        let waits = matches!(job.stand, Stand::Waiting { run: now, until } if now == run && until > self.now);
        if !waits && !self.is_leased(id, run) {
            return Err(Refused::TooLate);
        }
        if let Some(said) = said {
            self.end_run(id, run, said);
        }
        Ok((self.jobs[&id].status(), told_to_stop))
    }

    pub fn cancel(&mut self, id: Uuid) -> Result<(), Refused> {
        match self.jobs[&id].stand {
            Stand::Queued { .. } if self.jobs[&id].terms.cancel_refused && self.jobs[&id].has_run => {
                return Err(Refused::NotNow);
            }
            Stand::Queued { .. } => {
                self.finish(id, Stand::Canceled, self.cancel_price_between_runs(id));
            }
            Stand::Running { .. } | Stand::Waiting { .. } if self.jobs[&id].terms.cancel_refused => {
                return Err(Refused::NotNow);
            }
            Stand::Waiting { .. } => self.drop_outside(id, Stand::Canceled, self.cancel_price(id)),
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
        let (account, terms, hook) = (old.account, old.terms, old.hook.clone());
        self.buy(new, account, terms, hook);
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
