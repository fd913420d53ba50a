//! What is kept of a history: who did what, from when to when, and what the answer was; and what the actors know of each
//! other's jobs, so that they meet.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shared::{
    db::DbError,
    domain::{Lease, Status},
};
use uuid::Uuid;

use super::buyers::Purchase;

/// Microseconds since the history began.
pub type Moment = u64;

/// The word for an answer that somebody else's lock kept from being made.
pub const BUSY: &str = "busy";

/// A run of a job: what its lease token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    pub job: Uuid,
    pub token: i64,
}

/// What became of what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<T> {
    Made(T),
    /// By a rule that the documents name, in its word.
    Refused(String),
    /// None within the time that there was: it may have been done.
    Unknown,
}

/// What was said of a run, by its worker or by a call back.
#[derive(Debug, Clone)]
pub struct Said {
    pub run: Run,
    /// As `settle` and `call_back` take it.
    pub word: &'static str,
    pub used: Option<i64>,
    /// Not again before, or no longer than, so long.
    pub delay: Moment,
    pub output: Option<String>,
}

/// What somebody who looked saw of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub status: Status,
    pub captured: i64,
    pub output: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Done {
    Buy {
        account: usize,
        kinds: Vec<usize>,
        mark: String,
        jobs: Answer<Vec<Uuid>>,
    },
    Retry {
        job: Uuid,
        new: Answer<Uuid>,
    },
    Redrive {
        jobs: Vec<(Uuid, Option<Uuid>)>,
    },
    Cancel {
        job: Uuid,
        done: Answer<()>,
    },
    Claim {
        runs: Vec<Run>,
        lasts: Moment,
    },
    CheckIn {
        runs: Vec<Run>,
        told: Vec<Uuid>,
    },
    /// How the jobs stand that it settled; `None`: somebody else holds this one.
    Settle {
        said: Vec<Said>,
        stand: Answer<HashMap<Uuid, Option<Status>>>,
    },
    CallBack {
        said: Said,
        stand: Answer<Status>,
    },
    Rescue {
        jobs: Vec<(Uuid, Status)>,
    },
    Refund {
        job: Uuid,
        amount: Answer<i64>,
    },
    /// A grant, or an adjustment of either sign, by its key.
    Move {
        account: usize,
        amount: i64,
        key: String,
        done: Answer<()>,
    },
    /// Of an account over so many shares.
    Spread,
    /// To the credit source.
    Return,
    SetWebhook,
    TakeMessages {
        messages: Vec<(Uuid, i16)>,
    },
    RecordMessages {
        sent: usize,
        recorded: usize,
    },
    Look {
        job: Uuid,
        seen: Option<Seen>,
    },
    LookAtBalance {
        account: usize,
        available: i64,
        held: i64,
    },
    Audit,
    /// A tick of the worker's process: how many runs it says that it lost.
    Tick {
        lost: u64,
    },
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub actor: &'static str,
    pub began: Moment,
    pub ended: Moment,
    pub done: Done,
}

impl Entry {
    /// What it says of this job, if it does.
    pub fn about(&self, job: Uuid) -> Option<String> {
        let text = match &self.done {
            Done::Buy { jobs: Answer::Made(jobs), account, .. } if jobs.contains(&job) => {
                format!("bought for account {account}, {} jobs", jobs.len())
            }
            Done::Retry { job: old, new } if *old == job || *new == Answer::Made(job) => {
                format!("{:?}", self.done)
            }
            Done::Redrive { jobs } => {
                let (old, new) = jobs.iter().find(|(old, new)| *old == job || *new == Some(job))?;
                format!("redrive {old} as {new:?}")
            }
            Done::Claim { runs, lasts } => {
                let run = runs.iter().find(|run| run.job == job)?;
                format!("claim: run {} among {}, for {} ms", run.token, runs.len(), lasts / 1_000)
            }
            Done::CheckIn { runs, told } => {
                let run = runs.iter().find(|run| run.job == job)?;
                format!("check-in of run {}: told to stop: {}", run.token, told.contains(&job))
            }
            Done::Settle { said, stand } => {
                let one = said.iter().find(|said| said.run.job == job)?;
                let stand = match stand {
                    Answer::Made(stand) => match stand.get(&job) {
                        Some(Some(status)) => status.to_string(),
                        Some(None) => "out of reach".to_owned(),
                        None => "not recorded".to_owned(),
                    },
                    other => format!("{other:?}"),
                };
                format!("settle: run {} {} among {}: {stand}", one.run.token, one.word, said.len())
            }
            Done::Rescue { jobs } => format!("rescue: {}", jobs.iter().find(|(id, _)| *id == job)?.1),
            Done::CallBack { said, stand } if said.run.job == job => {
                format!("call back: run {} {}: {stand:?}", said.run.token, said.word)
            }
            Done::Cancel { job: it, .. } | Done::Refund { job: it, .. } | Done::Look { job: it, .. }
                if *it == job =>
            {
                format!("{:?}", self.done)
            }
            _ => return None,
        };
        Some(format!("{:>9} to {:>9} {}: {text}", self.began, self.ended, self.actor))
    }
}

/// What must never be.
#[derive(Debug, Clone)]
pub struct Finding {
    pub what: String,
    pub job: Option<Uuid>,
}

impl Finding {
    pub fn of(job: Uuid, what: impl Into<String>) -> Self {
        Self { what: what.into(), job: Some(job) }
    }

    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), job: None }
    }
}

/// What the actors know of each other: the newest of everything.
#[derive(Default)]
pub struct Board {
    pub bought: VecDeque<Uuid>,
    pub accounts: HashMap<Uuid, usize>,
    pub runs: VecDeque<Run>,
    /// Runs that a worker is about to settle.
    pub settling: Vec<Run>,
    /// Runs that were left to somebody outside.
    pub waiting: VecDeque<Run>,
    pub ended: VecDeque<Uuid>,
    /// Jobs of the worker's process.
    pub scripted: VecDeque<Uuid>,
    /// What was bought with a key, or is being bought.
    pub keyed: VecDeque<Purchase>,
    /// Leases of which a second worker has a copy.
    pub copies: VecDeque<Lease>,
}

/// Appends what is new, for as long as so many others are not newer.
pub fn keep<T>(newest: &mut VecDeque<T>, item: T, most: usize) {
    newest.push_back(item);
    if newest.len() > most {
        newest.pop_front();
    }
}

/// A history under way.
pub struct History {
    pub began: Instant,
    left: AtomicI64,
    numbers: AtomicU64,
    entries: Mutex<Vec<Entry>>,
    finding: Mutex<Option<Finding>>,
    board: Mutex<Board>,
}

impl History {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            left: AtomicI64::default(),
            numbers: AtomicU64::default(),
            entries: Mutex::default(),
            finding: Mutex::default(),
            board: Mutex::default(),
        }
    }

    pub fn now(&self) -> Moment {
        micros(self.began.elapsed())
    }

    /// Goes on for so many operations.
    pub fn go_on(&self, operations: i64) {
        self.left.store(operations, Ordering::Relaxed);
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether there are operations left, and nothing was found yet that must never be.
    pub fn goes_on(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0 && lock(&self.finding).is_none()
    }

    /// Keeps what was done since then.
    pub fn note(&self, actor: &'static str, began: Moment, done: Done) {
        self.left.fetch_sub(1, Ordering::Relaxed);
        let ended = self.now();
        lock(&self.entries).push(Entry { actor, began, ended, done });
    }

    pub fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// Something that needs no look at the rest.
    pub fn found(&self, finding: Finding) {
        lock(&self.finding).get_or_insert(finding);
    }

    pub fn finding(&self) -> Option<Finding> {
        lock(&self.finding).clone()
    }

    /// Sorts an answer: `rules` are the refusals that the documents name for this. No other error may be answered, but to
    /// somebody who was impatient.
    pub fn sort<T>(
        &self,
        (actor, job): (&str, Option<Uuid>),
        rules: &[&str],
        impatient: bool,
        answer: Result<T, DbError>,
    ) -> Answer<T> {
        match answer {
            Ok(made) => Answer::Made(made),
            Err(DbError::Refused { code, .. }) if rules.contains(&code.as_str()) => Answer::Refused(code),
            Err(DbError::Unknown(_) | DbError::Unavailable(_)) if impatient => Answer::Unknown,
            // On a machine that is busy; nothing was asked.
            Err(DbError::Unavailable(why)) if why.contains("connect") => Answer::Unknown,
            // Somebody held it for longer than it is waited for; a deadlock is another matter.
            Err(DbError::Busy(why)) if rules.contains(&BUSY) && why.contains("lock timeout") => {
                Answer::Refused(BUSY.to_owned())
            }
            Err(error) => {
                self.found(Finding { what: format!("{actor} was answered: {error}"), job });
                Answer::Unknown
            }
        }
    }
}

pub fn micros(time: Duration) -> Moment {
    u64::try_from(time.as_micros()).expect("an age of the world")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
