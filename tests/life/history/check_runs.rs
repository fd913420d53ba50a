//! Of runs and their leases: one worker has a run, what it says while it has it counts, once, and nothing starts that was
//! canceled or is final.

use shared::domain::Status;
use uuid::Uuid;

use super::{
    lives::{Claim, End, Life, Lives, Span},
    record::{Answer, BUSY, Done, Entry, Finding, Moment, Said},
};

/// By how much two clocks may go apart within a short lease.
const SLACK: Moment = 20_000;

/// What queues a job again, unless it was to be canceled.
const AGAIN: [&str; 5] = ["retry", "snooze", "yield", "crash", "return"];

pub fn check(entries: &[Entry], lives: &Lives) -> Result<(), Finding> {
    for entry in entries {
        let at = Span { began: entry.began, ended: entry.ended };
        match &entry.done {
            Done::Settle { said, stand: Answer::Made(stand) } => {
                for said in said {
                    let life = &lives[&said.run.job];
                    let found = match stand.get(&said.run.job) {
                        Some(Some(stand)) => check_recorded(life, at, said, *stand),
                        // Somebody else holds it: it is said again.
                        Some(None) => Ok(()),
                        None => check_lost(life, at, said),
                    };
                    found.map_err(|what| Finding::of(said.run.job, what))?;
                }
            }
            Done::CallBack { said, stand } => {
                if let Some(life) = lives.get(&said.run.job) {
                    let found = check_call(life, at, said, stand);
                    found.map_err(|what| Finding::of(said.run.job, what))?;
                }
            }
            Done::CheckIn { runs, told } => {
                for run in runs {
                    let told = told.contains(&run.job);
                    check_told(&lives[&run.job], at, run.token, told)
                        .map_err(|what| Finding::of(run.job, what))?;
                }
            }
            Done::Cancel { job, done: Answer::Refused(word) } if word != BUSY => {
                check_refused_cancel(&lives[job], at).map_err(|what| Finding::of(*job, what))?;
            }
            _ => {}
        }
    }
    let mut jobs: Vec<(&Uuid, &Life)> = lives.iter().filter(|(_, life)| life.is_known()).collect();
    jobs.sort_by_key(|(job, _)| **job);
    for (job, life) in jobs {
        check_claims(life).and_then(|()| check_ends(life)).map_err(|what| Finding::of(*job, what))?;
    }
    Ok(())
}

/// Whether the lease of the run surely lasted all that time, and who has it asked after they had it.
fn is_leased(life: &Life, at: Span, token: i64) -> Option<Claim> {
    let claim = life.claims.get(&token)?;
    (claim.at.ended <= at.began && at.ended + SLACK < claim.until).then_some(*claim)
}

/// Whether a cancel was surely made while the run was on, and before that moment: then its worker is to stop.
fn is_to_stop(life: &Life, claim: Claim, moment: Moment) -> bool {
    life.cancels.iter().any(|cancel| claim.at.ended < cancel.began && cancel.ended < moment)
}

/// A verdict that was not recorded: its lease had lapsed, or somebody else had ended the run.
fn check_lost(life: &Life, at: Span, said: &Said) -> Result<(), String> {
    let Some(claim) = is_leased(life, at, said.run.token) else { return Ok(()) };
    if life.ends_of(said.run.token).any(|end| end.at.began < at.ended) {
        return Ok(());
    }
    if said.word == "cancel" && !is_to_stop(life, claim, at.began) {
        return Ok(());
    }
    Err(format!(
        "a verdict is lost: {} of run {}, whose lease lasts and which nobody ended",
        said.word, said.run.token
    ))
}

fn check_recorded(life: &Life, at: Span, said: &Said, stand: Status) -> Result<(), String> {
    let token = said.run.token;
    let Some(claim) = life.claims.get(&token) else { return Err(format!("run {token} never was")) };
    if life.claims.get(&(token + 1)).is_some_and(|next| next.at.ended < at.began) {
        return Err(format!("run {token} counts, and run {} had begun", token + 1));
    }
    let canceled = life.cancels.iter().any(|cancel| cancel.began < at.ended);
    let may = match said.word {
        "complete" => stand == Status::Succeeded,
        "fail" | "reject" => stand == Status::Failed,
        "cancel" => stand == Status::Canceled,
        "wait" => matches!(stand, Status::Running | Status::Canceled),
        "crash" => matches!(stand, Status::Queued | Status::Failed | Status::Canceled),
        _ => matches!(stand, Status::Queued | Status::Canceled),
    };
    if !may || (stand == Status::Canceled && !canceled) {
        return Err(format!("{} of run {token} makes it {stand}", said.word));
    }
    let again = said.word == "wait" || AGAIN.contains(&said.word);
    if again && stand != Status::Canceled && is_to_stop(life, *claim, at.began) {
        return Err(format!("{} of run {token} makes it {stand}, though it was canceled", said.word));
    }
    Ok(())
}

fn check_call(life: &Life, at: Span, said: &Said, stand: &Answer<Status>) -> Result<(), String> {
    match stand {
        Answer::Made(stand) => {
            let may = match said.word {
                "progress" => *stand == Status::Running,
                "complete" => *stand == Status::Succeeded,
                "retry" => matches!(stand, Status::Queued | Status::Failed | Status::Canceled),
                _ => *stand == Status::Failed,
            };
            if may { Ok(()) } else { Err(format!("a call back's {} makes it {stand}", said.word)) }
        }
        Answer::Refused(word) if word != BUSY => {
            let token = said.run.token;
            let goes_on = |end: &End| end.said.word == "wait" && end.stand == Some(Status::Running);
            let waits = life.ends_of(token).any(|end| {
                goes_on(end) && end.at.ended < at.began && at.ended + SLACK < end.at.began + end.said.delay
            }) && !life.cancels.iter().any(|cancel| cancel.began < at.ended);
            let over = life.ends_of(token).any(|end| !goes_on(end) && end.at.began < at.ended);
            // A lease that became a wait is one or the other.
            let became = life.ends_of(token).any(|end| goes_on(end) && end.at.began < at.ended);
            let leased = is_leased(life, at, token).is_some() && !became;
            if (leased || waits) && !over {
                return Err(format!("a call back of run {token} is refused ({word}), which goes on"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_told(life: &Life, at: Span, token: i64, told: bool) -> Result<(), String> {
    if told && !life.cancels.iter().any(|cancel| cancel.began < at.ended) {
        return Err(format!("run {token} is told to stop, and nobody canceled it"));
    }
    let Some(claim) = is_leased(life, at, token) else { return Ok(()) };
    let over = life.ends_of(token).any(|end| end.at.began < at.ended);
    if !told && !over && is_to_stop(life, claim, at.began) {
        return Err(format!("run {token} is not told to stop, though it was canceled"));
    }
    Ok(())
}

fn check_refused_cancel(life: &Life, at: Span) -> Result<(), String> {
    let running = life.terms().cancel_refused && life.claims.values().any(|claim| claim.at.began < at.ended);
    if running || !life.is_known() || life.may_be_final(at.ended) {
        return Ok(());
    }
    Err("a cancel is refused, though it was not final".to_owned())
}

/// Runs follow each other: none begins while another has the lease, before it is due, after a cancel, or after the end.
fn check_claims(life: &Life) -> Result<(), String> {
    for (&token, claim) in &life.claims {
        if life.cancels.iter().any(|cancel| cancel.ended < claim.at.began) {
            return Err(format!("run {token} began after it was canceled"));
        }
        if life.is_final(claim.at.began) {
            return Err(format!("run {token} began after it was final"));
        }
        if token == 1 {
            continue;
        }
        let last = token - 1;
        let Some(before) = life.claims.get(&last) else { return Err(format!("nobody had run {last}")) };
        if before.at.began > claim.at.ended {
            return Err(format!("run {token} came before run {last}"));
        }
        let queued: Vec<&End> = life
            .ends_of(last)
            .filter(|end| {
                end.stand.is_none_or(|stand| stand == Status::Queued) && AGAIN.contains(&end.said.word)
            })
            .collect();
        if !queued.iter().any(|end| end.at.began < claim.at.ended) {
            if claim.at.ended + SLACK < before.until {
                return Err(format!("run {token} began while run {last} had the lease"));
            }
            continue;
        }
        let early = |end: &&&End| claim.at.ended + SLACK < end.at.began + end.said.delay;
        if queued.iter().all(|end| early(&end)) {
            return Err(format!("run {token} began before it was due"));
        }
    }
    Ok(())
}

/// A run ends once; one that waits, once more, from outside; and a job is final once.
fn check_ends(life: &Life) -> Result<(), String> {
    for token in life.claims.keys() {
        let sure = |outside: bool| {
            life.ends_of(*token).filter(move |end| end.stand.is_some() && end.outside == outside)
        };
        let (by_workers, by_others) = (sure(false).count(), sure(true).count());
        if by_workers > 1 || by_others > 1 {
            return Err(format!(
                "run {token} ended {by_workers} times by its worker and {by_others} from outside"
            ));
        }
        if let (Some(worker), Some(other)) = (sure(false).next(), sure(true).next())
            && (worker.said.word != "wait"
                || worker.stand != Some(Status::Running)
                || worker.at.began > other.at.ended)
        {
            return Err(format!("run {token} ended twice: {} and {}", worker.said.word, other.said.word));
        }
    }
    if let Some(stray) = life.ends.iter().find(|end| !life.claims.contains_key(&end.said.run.token)) {
        return Err(format!("run {} ended, and never was", stray.said.run.token));
    }
    let ends = life.finals().count() + life.rescues.iter().filter(|(_, stand)| stand.is_final()).count();
    if ends > 1 {
        return Err(format!("it became final {ends} times"));
    }
    Ok(())
}
