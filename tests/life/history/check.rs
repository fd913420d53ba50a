//! What was answered, held against the promise: at any moment, and at the end.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::domain::Status;
use uuid::Uuid;

use super::{
    buyers::scripts,
    check_money::{self, price_between_runs, price_of},
    check_runs,
    lives::{self, End, Life, Lives, Span},
    record::{Answer, Done, Entry, Finding, Seen},
    stage::{Final, Stage},
};

/// What the answers say of themselves, whatever is there at the end.
pub fn check_answers(entries: &[Entry]) -> Result<Lives, Finding> {
    let lives = lives::sort(entries)?;
    check_runs::check(entries, &lives)?;
    check_looks(entries, &lives)?;
    check_afterwards(entries, &lives)?;
    check_money::check_refusals(entries, &lives)?;
    check_messages(entries)?;
    Ok(lives)
}

/// And what is there at the end.
pub async fn check_end(stage: &Stage, entries: &[Entry], lives: &Lives) -> Result<(), Finding> {
    let jobs = stage.jobs().await;
    if let Some(job) = jobs.keys().find(|job| !lives.contains_key(job)) {
        return Err(Finding::of(*job, "nobody bought it"));
    }
    let mut all: Vec<(&Uuid, &Life)> = lives.iter().collect();
    all.sort_by_key(|(job, _)| **job);
    for (job, life) in all {
        let Some(is) = jobs.get(job) else {
            return Err(Finding::of(*job, "it was bought, and is not there"));
        };
        check_job(stage, life, is).map_err(|what| Finding::of(*job, what))?;
    }
    check_final_looks(entries, &jobs)?;
    for (job, life) in lives {
        for (_, new) in &life.retries {
            if jobs[new].retry_of != Some(*job) {
                return Err(Finding::of(*new, format!("it is a retry of {job}, and does not say so")));
            }
        }
    }
    check_money::check_books(stage, entries, lives, &jobs).await
}

/// A job as it ended: as was bought, and as the one who ended it said.
fn check_job(stage: &Stage, life: &Life, is: &Final) -> Result<(), String> {
    let terms = life.terms();
    let bought = (stage.accounts[life.account], terms.name, terms.price);
    if (is.account, is.kind.as_str(), is.price) != bought {
        return Err(format!("bought was {bought:?}, there is {is:?}"));
    }
    if is.attempt > is.max_attempts || !(0..=is.price).contains(&is.captured) {
        return Err(format!("more than may be: {is:?}"));
    }
    if !life.is_known() {
        return check_scripted(life, is);
    }
    let unheard = life.is_unheard();
    if !unheard && !life.may_have_lapsed() {
        // What crashed, was put off or handed back gave its attempt back.
        let given_back = |end: &&End| {
            end.stand == Some(Status::Queued)
                && ["crash", "snooze", "yield", "return"].contains(&end.said.word)
        };
        let attempts = life.claims.len() - life.ends.iter().filter(given_back).count();
        if usize::try_from(is.attempt) != Ok(attempts) {
            return Err(format!("{attempts} attempts were spent; there is {is:?}"));
        }
    }
    if let Some((end, stand)) = life.finals().next() {
        let output = (stand == Status::Succeeded).then(|| end.said.output.clone()).flatten();
        let price = price_of(life, end, stand);
        if (is.status.as_str(), &is.output) != (stand.as_str(), &output) || !price.contains(&is.captured) {
            let word = end.said.word;
            return Err(format!("{word} made it {stand}, {output:?}, for {price:?}; there is {is:?}"));
        }
        return Ok(());
    }
    if let Some((_, stand)) = life.rescues.iter().find(|(_, stand)| stand.is_final()) {
        return if is.status == stand.as_str() {
            Ok(())
        } else {
            Err(format!("given up as {stand}; {is:?}"))
        };
    }
    // Nobody was answered that it is: somebody canceled it, did not wait for the answer, or a tick gave it up.
    let canceled = is.status == "canceled" && !life.cancels.is_empty();
    let given_up = is.status == "failed" && life.may_have_lapsed();
    if !canceled && !unheard && !given_up {
        return Err(format!("nobody ended it: {is:?}"));
    }
    let last = life.claims.keys().last();
    let waited = last.is_some_and(|last| life.ends_of(*last).any(|end| end.said.word == "wait"));
    let price = match is.status.as_str() {
        _ if unheard => 0..=is.price,
        "canceled" if life.may_have_lapsed() => 0..=terms.price,
        "canceled" if waited && terms.cancel_costs => terms.price..=terms.price,
        "canceled" if waited => 0..=0,
        "canceled" => price_between_runs(life, None),
        _ => 0..=0,
    };
    if price.contains(&is.captured) { Ok(()) } else { Err(format!("it is to cost {price:?}: {is:?}")) }
}

/// A job of the worker's process: each step of its script is a run, and the last one ends it.
fn check_scripted(life: &Life, is: &Final) -> Result<(), String> {
    let steps = is.input["script"].as_array().map_or(0, Vec::len);
    let last = &is.input["script"][steps - 1]["do"];
    if !scripts().contains(&is.input["script"]) {
        return Err(format!("a script of nobody: {is:?}"));
    }
    let output: Option<Value> =
        is.output.as_deref().map(|output| serde_json::from_str(output).expect("JSON"));
    let as_written = match is.status.as_str() {
        "succeeded" => {
            output.is_some_and(|output| output["run"] == steps) && last != "final" && is.captured == is.price
        }
        "failed" => last == "final" && is.captured == 0,
        _ => !life.cancels.is_empty() && is.captured == 0,
    };
    if as_written { Ok(()) } else { Err(format!("its {steps} runs do not end like that: {is:?}")) }
}

/// Whoever looks sees what was answered before, and what is final stays as it is.
fn check_looks(entries: &[Entry], lives: &Lives) -> Result<(), Finding> {
    let mut last: BTreeMap<Uuid, (Span, &Seen)> = BTreeMap::new();
    for entry in entries {
        let at = Span { began: entry.began, ended: entry.ended };
        let Done::Look { job, seen } = &entry.done else { continue };
        let Some(seen) = seen else { return Err(Finding::of(*job, "it was bought, and is not to be seen")) };
        if lives[job].is_final(at.began) && !seen.status.is_final() {
            return Err(Finding::of(*job, format!("it was final, and is seen as {}", seen.status)));
        }
        match last.get(job) {
            Some((before, was)) if before.ended < at.began && was.status.is_final() && was != &seen => {
                return Err(Finding::of(*job, format!("it was seen as {was:?}, then as {seen:?}")));
            }
            _ => {
                if seen.status.is_final() {
                    last.insert(*job, (at, seen));
                }
            }
        }
    }
    Ok(())
}

fn check_final_looks(entries: &[Entry], jobs: &BTreeMap<Uuid, Final>) -> Result<(), Finding> {
    for entry in entries {
        if let Done::Look { job, seen: Some(seen) } = &entry.done
            && seen.status.is_final()
        {
            let is = &jobs[job];
            if (seen.status.as_str(), seen.captured, &seen.output)
                != (is.status.as_str(), is.captured, &is.output)
            {
                return Err(Finding::of(*job, format!("it was seen as {seen:?}, and is {is:?}")));
            }
        }
    }
    Ok(())
}

/// Refunds and retries: once, of what is there to be refunded or retried, and refused only then.
fn check_afterwards(entries: &[Entry], lives: &Lives) -> Result<(), Finding> {
    for (job, life) in lives {
        if life.retries.len() > 1 || life.refunds.len() > 1 {
            let (retries, refunds) = (life.retries.len(), life.refunds.len());
            return Err(Finding::of(*job, format!("{retries} retries and {refunds} refunds")));
        }
        let Some((end, stand)) = life.finals().next() else { continue };
        let captured = price_of(life, end, stand);
        if life.refunds.iter().any(|(_, amount)| !captured.contains(amount)) {
            return Err(Finding::of(*job, format!("{:?} is refunded of {captured:?}", life.refunds)));
        }
        if stand == Status::Succeeded && !life.retries.is_empty() {
            return Err(Finding::of(*job, "it succeeded, and was retried"));
        }
    }
    for entry in entries {
        let (job, word, fair) = match &entry.done {
            Done::Retry { job, new: Answer::Refused(word) } => {
                let life = &lives[job];
                let fair = match word.as_str() {
                    "already_retried" => life.retries.iter().any(|(at, _)| at.began < entry.ended),
                    "not_retryable" => {
                        let done = |stand| stand != Status::Succeeded;
                        !life.finals().any(|(end, stand)| done(stand) && end.at.ended < entry.began)
                    }
                    _ => true,
                };
                (job, word, fair)
            }
            Done::Refund { job, amount: Answer::Refused(word) } => {
                let life = &lives[job];
                let paid = |(end, stand): (&_, _)| {
                    *price_of(life, end, stand).start() > 0 && end.at.ended < entry.began
                };
                let fair = match word.as_str() {
                    "already_refunded" => life.refunds.iter().any(|(at, _)| at.began < entry.ended),
                    _ => !life.finals().any(paid),
                };
                (job, word, fair)
            }
            _ => continue,
        };
        if !fair {
            return Err(Finding::of(*job, format!("{word} was answered, and is not so")));
        }
    }
    Ok(())
}

/// A message is with one sender at a time: each time it is taken counts one more.
fn check_messages(entries: &[Entry]) -> Result<(), Finding> {
    let mut taken = std::collections::HashSet::new();
    for entry in entries {
        match &entry.done {
            Done::TakeMessages { messages } => {
                if let Some((id, attempt)) = messages.iter().find(|message| !taken.insert(**message)) {
                    return Err(Finding::new(format!("sending {attempt} of message {id} was given to two")));
                }
            }
            // They have it for ten minutes.
            Done::RecordMessages { sent, recorded } if recorded != sent => {
                return Err(Finding::new(format!(
                    "of {sent} messages that were sent {recorded} are recorded"
                )));
            }
            Done::Tick { lost } if *lost > 0 => {
                return Err(Finding::new(format!("the worker's process lost {lost} runs that it had")));
            }
            _ => {}
        }
    }
    Ok(())
}
