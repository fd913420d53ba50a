//! Of credits: each job is held once and paid as its terms say, every movement is somebody's, nothing is lost or made, and
//! nobody is told that there is too little while there is enough.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

use shared::domain::Status;
use uuid::Uuid;

use super::{
    lives::{End, Life, Lives, Span},
    record::{Answer, Done, Entry, Finding, Moment},
    stage::{CREDITS, Final, SOURCE, Stage, terms},
};

/// What an end makes a job cost, at least and at most.
pub fn price_of(life: &Life, end: &End, stand: Status) -> RangeInclusive<i64> {
    let terms = life.terms();
    let price = match stand {
        Status::Succeeded if terms.metered => {
            end.said.used.map_or(terms.price, |used| used.clamp(0, terms.price))
        }
        Status::Succeeded => terms.price,
        Status::Failed if end.said.word == "reject" && terms.input_error_costs => terms.price,
        // Handed back before it was started: what was done was done before.
        Status::Canceled if end.said.word == "return" => {
            return price_between_runs(life, Some(end.said.run.token));
        }
        Status::Canceled if terms.cancel_costs => terms.price,
        _ => 0,
    };
    price..=price
}

/// What a job costs that is canceled while no run of it is on: nothing unless a run did something, before that one.
pub fn price_between_runs(life: &Life, token: Option<i64>) -> RangeInclusive<i64> {
    let price = if life.terms().cancel_costs { life.terms().price } else { 0 };
    let did = |end: &End| {
        token.is_none_or(|token| end.said.run.token < token)
            && end.stand == Some(Status::Queued)
            && end.said.word != "return"
    };
    if life.ends.iter().any(did) {
        price..=price
    } else if life.may_have_lapsed() || life.is_unheard() {
        0..=price
    } else {
        0..=0
    }
}

/// Nobody was refused for want of credits that were there all the while, whatever else went on; nobody saw less.
pub fn check_refusals(entries: &[Entry], lives: &Lives) -> Result<(), Finding> {
    // What surely had come in by a moment, and what may have gone out by one.
    let mut come: Vec<(usize, Moment, i64)> = Vec::new();
    let mut gone: Vec<(usize, Moment, i64)> = Vec::new();
    let mut held: HashMap<&str, (usize, Moment, i64)> = HashMap::new();
    let mut keys: HashSet<&str> = HashSet::new();
    let mut refused: Vec<(usize, Span, i64, Option<Uuid>)> = Vec::new();
    for entry in entries {
        let at = Span { began: entry.began, ended: entry.ended };
        match &entry.done {
            Done::Buy { account, kinds, mark, jobs } => {
                let price = kinds.iter().map(|kind| terms(*kind).price).sum();
                if let Answer::Refused(_) = jobs {
                    refused.push((*account, at, price, None));
                } else {
                    let first = held.entry(mark).or_insert((*account, at.began, price));
                    first.1 = first.1.min(at.began);
                }
            }
            Done::Retry { job, new: Answer::Refused(word) } if word == "insufficient_credits" => {
                let life = &lives[job];
                refused.push((life.account, at, life.terms().price, Some(*job)));
            }
            Done::LookAtBalance { account, available, held } => {
                if *available < 0 || *held < 0 {
                    return Err(Finding::new(format!(
                        "account {account} was seen with {available} and {held} held"
                    )));
                }
                refused.push((*account, at, available + 1, None));
            }
            Done::Move { account, amount, key, done } => match done {
                // A replay moves nothing.
                Answer::Made(()) if *amount > 0 && keys.insert(key) => {
                    come.push((*account, at.ended, *amount))
                }
                Answer::Made(()) if *amount < 0 => gone.push((*account, at.began, -amount)),
                Answer::Refused(_) => refused.push((*account, at, -amount, None)),
                _ => {}
            },
            _ => {}
        }
    }
    gone.extend(held.into_values());
    for life in lives.values() {
        let price = life.terms().price;
        gone.extend(life.retries.iter().map(|(at, _)| (life.account, at.began, price)));
        come.extend(life.refunds.iter().map(|(at, amount)| (life.account, at.ended, *amount)));
        come.extend(
            life.finals()
                .map(|(end, stand)| (life.account, end.at.ended, price - price_of(life, end, stand).end())),
        );
    }
    for (account, at, price, job) in refused {
        let sum = |moves: &[(usize, Moment, i64)], until| -> i64 {
            moves
                .iter()
                .filter(|(who, when, _)| *who == account && *when < until)
                .map(|(_, _, amount)| amount)
                .sum()
        };
        let least = CREDITS[account] + sum(&come, at.began) - sum(&gone, at.ended);
        if least >= price {
            let what = format!(
                "account {account} was refused {price} for want of credits, or seen without ({} to {}), and had {least}",
                at.began, at.ended
            );
            return Err(Finding { what, job });
        }
    }
    Ok(())
}

/// The ledger, entry by entry, and the balances, against what was answered and what became of the jobs.
pub async fn check_books(
    stage: &Stage,
    entries: &[Entry],
    lives: &Lives,
    jobs: &BTreeMap<Uuid, Final>,
) -> Result<(), Finding> {
    let mut moved: HashMap<&str, (usize, i64)> = HashMap::new();
    for entry in entries {
        if let Done::Move { account, amount, key, done: Answer::Made(()) } = &entry.done {
            moved.insert(key, (*account, *amount));
        }
    }
    let mut of_jobs: HashMap<(Uuid, String), i64> = HashMap::new();
    let mut sums = CREDITS.map(i128::from);
    let sql =
        "SELECT account_id, kind::text, amount, job_id, idempotency_key FROM punchcard.ledger ORDER BY id";
    for row in stage.bench.rows(sql).await {
        let (account, kind, amount): (Uuid, String, i64) = (row.get(0), row.get(1), row.get(2));
        let (job, key): (Option<Uuid>, Option<&str>) = (row.get(3), row.get(4));
        let at = stage.accounts.iter().position(|it| *it == account);
        let Some(at) = at else { return Err(Finding::new(format!("{account}: an account of nobody"))) };
        match (job, key) {
            (Some(job), _) => {
                if jobs.get(&job).is_none_or(|it| it.account != account) {
                    return Err(Finding::of(job, format!("a {kind} in the ledger of account {at}")));
                }
                if of_jobs.insert((job, kind.clone()), amount).is_some() {
                    return Err(Finding::of(job, format!("two entries of kind {kind}")));
                }
            }
            (None, Some("start")) => {}
            (None, Some(key))
                if at == SOURCE && (key.starts_with("drawn:") || key.starts_with("returned:")) => {}
            (None, Some(key)) => match moved.remove(key) {
                Some((who, much)) if (who, much) == (at, amount) => sums[at] += i128::from(amount),
                other => {
                    return Err(Finding::new(format!("{kind} of {amount} to {at} by {key:?}: {other:?}")));
                }
            },
            (None, None) if kind == "shift" => {}
            (None, None) => return Err(Finding::new(format!("a {kind} of {amount} to {at} for nothing"))),
        }
    }
    if let Some((key, (account, amount))) = moved.into_iter().next() {
        return Err(Finding::new(format!(
            "{amount} of account {account} by {key:?} moved, and no entry says so"
        )));
    }
    for (job, is) in jobs {
        let entry = |kind: &str| of_jobs.get(&(*job, kind.to_owned())).copied().unwrap_or(0);
        let refunded: i64 = lives[job].refunds.iter().map(|(_, amount)| amount).sum();
        let said = [entry("hold"), entry("capture"), entry("release"), entry("adjust")];
        let meant = [is.price, is.captured, is.price - is.captured, refunded];
        if said != meant {
            let what =
                format!("held, captured, released, refunded: the ledger says {said:?}, it was {meant:?}");
            return Err(Finding::of(*job, what));
        }
        sums[lives[job].account] -= i128::from(is.captured - refunded);
    }
    for (account, sum) in sums.into_iter().enumerate() {
        let (mut available, held) = stage.bench.balance(stage.accounts[account]).await;
        if account == SOURCE {
            available += stage.bench.count("SELECT credits FROM public.wallets").await;
        }
        if (i128::from(available), held) != (sum, 0) {
            let what =
                format!("account {account} has {available} and {held} held; of what it had {sum} is left");
            return Err(Finding::new(what));
        }
    }
    Ok(())
}
