//! The record, sorted by job: what each was sold for, its runs, what ended them, and who canceled it.

use std::collections::{BTreeMap, HashMap};

use shared::domain::Status;
use uuid::Uuid;

use super::{
    record::{Answer, Done, Entry, Finding, Moment, Run, Said},
    stage::{SCRIPTED, terms},
    workers::LONG,
};
use crate::life::model::Terms;

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub began: Moment,
    pub ended: Moment,
}

/// What ended a run, or its lease.
#[derive(Debug, Clone)]
pub struct End {
    pub at: Span,
    pub said: Said,
    /// How the job stood then; `None`: there was no answer, and perhaps no end.
    pub stand: Option<Status>,
    pub outside: bool,
}

/// A claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub at: Span,
    /// Its lease lasts until then, at least.
    pub until: Moment,
}

#[derive(Debug)]
pub struct Life {
    pub account: usize,
    pub kind: usize,
    pub claims: BTreeMap<i64, Claim>,
    pub ends: Vec<End>,
    /// Cancels that were not refused.
    pub cancels: Vec<Span>,
    /// What a rescue said of it.
    pub rescues: Vec<(Span, Status)>,
    pub retries: Vec<(Span, Uuid)>,
    pub refunds: Vec<(Span, i64)>,
}

impl Life {
    fn new(account: usize, kind: usize) -> Self {
        let (claims, ends, cancels) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (rescues, retries, refunds) = (Vec::new(), Vec::new(), Vec::new());
        Self { account, kind, claims, ends, cancels, rescues, retries, refunds }
    }

    pub fn terms(&self) -> Terms {
        terms(self.kind)
    }

    /// Whether all its runs are on record: the worker's process keeps its own to itself.
    pub fn is_known(&self) -> bool {
        self.kind != SCRIPTED
    }

    pub fn ends_of(&self, token: i64) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(move |end| end.said.run.token == token)
    }

    /// Final ends that were answered, with what they made of it.
    pub fn finals(&self) -> impl Iterator<Item = (&End, Status)> {
        self.ends.iter().filter_map(|end| Some((end, end.stand.filter(|stand| stand.is_final())?)))
    }

    /// Whether something was said of a run of it, and nobody heard whether it counts.
    pub fn is_unheard(&self) -> bool {
        self.ends.iter().any(|end| end.stand.is_none())
    }

    /// Whether a lease, or a wait, of it may have run out: then a tick may have taken it back, and nobody heard.
    pub fn may_have_lapsed(&self) -> bool {
        let long = super::record::micros(LONG) / 2;
        let short = |claim: &Claim| claim.until < claim.at.began + long;
        self.claims.values().any(short)
            || self.ends.iter().any(|end| end.said.word == "wait" && end.said.delay < long)
    }

    /// Whether it may have become final before that moment.
    pub fn may_be_final(&self, moment: Moment) -> bool {
        self.may_have_lapsed()
            || self.cancels.iter().any(|cancel| cancel.began < moment)
            || self.ends.iter().any(|end| end.at.began < moment && end.stand.is_none_or(Status::is_final))
    }

    /// Whether it surely was final at that moment.
    pub fn is_final(&self, moment: Moment) -> bool {
        self.finals().any(|(end, _)| end.at.ended < moment)
            || self.rescues.iter().any(|(at, stand)| stand.is_final() && at.ended < moment)
    }
}

/// Every job that somebody was told that it was bought, by its id.
pub type Lives = HashMap<Uuid, Life>;

/// Sorts the record; finds jobs that were bought twice, or of nobody.
pub fn sort(entries: &[Entry]) -> Result<Lives, Finding> {
    let mut lives = Lives::new();
    let mut marks: HashMap<&str, &[Uuid]> = HashMap::new();
    for entry in entries {
        if let Done::Buy { account, kinds, mark, jobs: Answer::Made(jobs) } = &entry.done {
            if jobs.len() != kinds.len() {
                return Err(Finding::new(format!("{mark}: {} jobs for {}", jobs.len(), kinds.len())));
            }
            match marks.insert(mark, jobs) {
                Some(before) if before == jobs => continue,
                Some(before) => {
                    return Err(Finding::new(format!("one key bought {before:?} and {jobs:?} ({mark})")));
                }
                None => {}
            }
            for (job, kind) in jobs.iter().zip(kinds) {
                if lives.insert(*job, Life::new(*account, *kind)).is_some() {
                    return Err(Finding::of(*job, "it was bought by two"));
                }
            }
        }
    }
    // A retry of a retry may be noted before the retry that it is of.
    let mut retries: Vec<(Span, Uuid, Uuid)> = Vec::new();
    for entry in entries {
        let at = Span { began: entry.began, ended: entry.ended };
        match &entry.done {
            Done::Retry { job, new: Answer::Made(new) } => retries.push((at, *job, *new)),
            Done::Redrive { jobs } => {
                retries.extend(jobs.iter().filter_map(|(job, new)| Some((at, *job, (*new)?))));
            }
            _ => {}
        }
    }
    while !retries.is_empty() {
        let before = retries.len();
        let mut later = Vec::new();
        for (at, job, new) in retries {
            let Some(old) = lives.get_mut(&job) else {
                later.push((at, job, new));
                continue;
            };
            old.retries.push((at, new));
            let life = Life::new(old.account, old.kind);
            if lives.insert(new, life).is_some() {
                return Err(Finding::of(new, "it was bought by two"));
            }
        }
        if later.len() == before {
            return Err(Finding::of(later[0].1, "it was retried, and nobody had bought it"));
        }
        retries = later;
    }
    for entry in entries {
        enter(&mut lives, entry)?;
    }
    Ok(lives)
}

fn enter(lives: &mut Lives, entry: &Entry) -> Result<(), Finding> {
    let at = Span { began: entry.began, ended: entry.ended };
    let strange = |job: &Uuid| Finding::of(*job, format!("nobody bought it, and there is {:?}", entry.done));
    match &entry.done {
        Done::Claim { runs, lasts } => {
            for Run { job, token } in runs {
                let claim = Claim { at, until: at.began + lasts };
                if lives.get_mut(job).ok_or_else(|| strange(job))?.claims.insert(*token, claim).is_some() {
                    return Err(Finding::of(*job, format!("run {token} was given to two")));
                }
            }
        }
        Done::Settle { said, stand } => {
            for said in said {
                let stand = match stand {
                    Answer::Made(stand) => match stand.get(&said.run.job) {
                        Some(Some(status)) => Some(*status),
                        _ => continue,
                    },
                    Answer::Refused(_) => continue,
                    Answer::Unknown => None,
                };
                lives.get_mut(&said.run.job).ok_or_else(|| strange(&said.run.job))?.ends.push(End {
                    at,
                    said: said.clone(),
                    stand,
                    outside: false,
                });
            }
        }
        Done::CallBack { said, stand: Answer::Made(stand) } if said.word != "progress" => {
            let end = End { at, said: said.clone(), stand: Some(*stand), outside: true };
            lives.get_mut(&said.run.job).ok_or_else(|| strange(&said.run.job))?.ends.push(end);
        }
        Done::Cancel { job, done: Answer::Made(()) } => {
            lives.get_mut(job).ok_or_else(|| strange(job))?.cancels.push(at)
        }
        Done::Rescue { jobs } => {
            for (job, status) in jobs {
                lives.get_mut(job).ok_or_else(|| strange(job))?.rescues.push((at, *status));
            }
        }
        Done::Refund { job, amount: Answer::Made(amount) } => {
            lives.get_mut(job).ok_or_else(|| strange(job))?.refunds.push((at, *amount))
        }
        _ => {}
    }
    Ok(())
}
