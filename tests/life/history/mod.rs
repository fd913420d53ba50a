//! Concurrent random histories: buyers, cancelers, workers, call backs, operators and a worker's process at once, on few jobs and
//! few accounts, with every answer kept (`record.rs`). Afterwards the record is held against the promise (`check*.rs`): no order
//! of what was asked may explain an answer that breaks it. And a proof that this would be noticed: faults are planted, and found.

mod buyers;
mod check;
mod check_money;
mod check_runs;
mod lives;
mod operators;
mod record;
mod stage;
mod workers;

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinSet;
use uuid::Uuid;

use record::{Answer, Done, Entry, Finding};
use stage::{Actor, Stage};

/// How many lines of a trace are shown.
const SHOWN: usize = 60;

/// What to play.
#[derive(Clone, Copy)]
struct Play {
    operations: i64,
    /// Whether a worker's process is part of it.
    process: bool,
    /// A fault: in this function, this text is replaced by that.
    fault: Option<(&'static str, &'static str, &'static str)>,
}

/// Plays a history; answers what was found, with the trace of the job, or what was done.
async fn play(seed: u64, play: Play) -> Result<BTreeMap<&'static str, usize>, String> {
    let stage = Stage::new(play.operations, play.process).await;
    if let Some((function, sound, faulty)) = play.fault {
        plant(&stage, function, sound, faulty).await;
    }
    let mut actors = JoinSet::new();
    actors.spawn(stage.actor("buyer 1", seed).buys());
    actors.spawn(stage.actor("buyer 2", seed).buys());
    actors.spawn(stage.actor("canceler", seed).cancels());
    actors.spawn(stage.actor("holder", seed).holds());
    actors.spawn(stage.actor("worker 1", seed).works());
    actors.spawn(stage.actor("worker 2", seed).works());
    actors.spawn(stage.actor("worker 3", seed).works());
    actors.spawn(stage.actor("outside 1", seed).calls_back());
    actors.spawn(stage.actor("outside 2", seed).calls_back());
    actors.spawn(stage.operator("operator 1", seed).operates());
    actors.spawn(stage.operator("operator 2", seed).operates());
    actors.spawn(stage.actor("messenger", seed).tells());
    actors.spawn(stage.actor("observer", seed).looks());
    if play.process {
        actors.spawn(stage.actor("process", seed).ticks());
    }
    actors.join_all().await;
    let found = judge(&stage, stage.actor("last", seed)).await;
    let entries = stage.history.entries();
    match found {
        Ok(()) => Ok(count(&entries)),
        Err(finding) => Err(explain(seed, &entries, &finding)),
    }
}

async fn judge(stage: &Arc<Stage>, last: Actor) -> Result<(), Finding> {
    stage.history.finding().map_or(Ok(()), Err)?;
    check::check_answers(&stage.history.entries())?;
    let left = last.finish_all().await;
    stage.history.finding().map_or(Ok(()), Err)?;
    let entries = stage.history.entries();
    let lives = check::check_answers(&entries)?;
    if let Some(job) = left.first() {
        return Err(Finding::of(*job, format!("{} jobs cannot be finished", left.len())));
    }
    check::check_end(stage, &entries, &lives).await?;
    stage.operator("auditor", 0).audit().await;
    stage.history.finding().map_or(Ok(()), Err)?;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    match stage.bench.count(deadlocks).await {
        0 => Ok(()),
        some => Err(Finding::new(format!("{some} deadlocks"))),
    }
}

/// How often what was done.
fn count(entries: &[Entry]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        let word = match &entry.done {
            Done::Buy { jobs: Answer::Refused(_), .. } => "refused",
            Done::Buy { kinds, .. } if kinds.len() > 1 => "batches",
            Done::Buy { .. } => "purchases",
            Done::Retry { .. } => "retries",
            Done::Redrive { .. } => "redrives",
            Done::Cancel { .. } => "cancels",
            Done::Claim { .. } => "claims",
            Done::CheckIn { .. } => "check-ins",
            Done::Settle { .. } => "settles",
            Done::CallBack { .. } => "call backs",
            Done::Rescue { .. } => "rescues",
            Done::Refund { .. } => "refunds",
            Done::Move { .. } => "grants and adjustments",
            Done::Spread => "spreads",
            Done::Return => "returns",
            Done::SetWebhook => "webhooks",
            Done::TakeMessages { .. } | Done::RecordMessages { .. } => "messages",
            Done::Look { .. } | Done::LookAtBalance { .. } => "looks",
            Done::Audit => "audits",
            Done::Tick { .. } => "ticks",
        };
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

fn explain(seed: u64, entries: &[Entry], finding: &Finding) -> String {
    let mut text = format!("{}\n", finding.what);
    if let Some(job) = finding.job {
        let lines: Vec<String> = entries.iter().filter_map(|entry| entry.about(job)).collect();
        text += &format!(
            "job {job}, in microseconds:\n{}\n",
            lines[lines.len().saturating_sub(SHOWN)..].join("\n")
        );
    }
    format!("{text}after {} operations, PUNCHCARD_SEED={seed}", entries.len())
}

/// Spoils a function of the database where the text stands.
async fn plant(stage: &Stage, function: &str, sound: &str, faulty: &str) {
    let sql = format!(
        "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
         WHERE p.proname = '{function}' AND p.pronamespace = 'punchcard'::regnamespace"
    );
    let is: String = stage.bench.rows(&sql).await[0].get(0);
    assert!(is.contains(sound), "{function}: {sound} is not there to be spoiled");
    stage.bench.sql(&is.replace(sound, faulty)).await;
}

fn new_seed() -> u64 {
    let given = std::env::var("PUNCHCARD_SEED").ok();
    given.map_or_else(|| Uuid::new_v4().as_u64_pair().1, |seed| seed.parse().expect("PUNCHCARD_SEED"))
}

/// `PUNCHCARD_SEED` makes the same choices again, as far as the actors meet as they did.
#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_history_keeps_the_promise() {
    let seed = new_seed();
    println!("PUNCHCARD_SEED={seed}");
    let began = std::time::Instant::now();
    let counts = match play(seed, Play { operations: 5_000, process: true, fault: None }).await {
        Ok(counts) => counts,
        Err(found) => panic!("{found}"),
    };
    let operations: usize = counts.values().sum();
    println!("{operations} operations in {:?}: {counts:?}", began.elapsed());
    assert!(operations >= 5_000);
    let all = [
        "audits",
        "batches",
        "call backs",
        "cancels",
        "check-ins",
        "claims",
        "grants and adjustments",
        "looks",
        "messages",
        "purchases",
        "redrives",
        "refunds",
        "refused",
        "rescues",
        "retries",
        "returns",
        "settles",
        "spreads",
        "ticks",
        "webhooks",
    ];
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), all, "everything happens in it");
}

/// A short history, in which a worker's process would mostly start.
const SHORT: Play = Play { operations: 700, process: false, fault: None };

/// Under READ COMMITTED a row that somebody changed meanwhile is looked at again, and of an appended sub-select only against its
/// first row: a verdict beside it is dropped.
const DROPPED_VERDICT: (&str, &str, &str) = (
    "settle",
    "USING ending v",
    "USING (SELECT v.* FROM verdict v WHERE v.verdict IN ('complete', 'fail', 'reject', 'cancel', 'overdue') UNION ALL
            SELECT u.job_id, u.lease_token, u.verdict, u.delay, u.output, u.error, u.used FROM undecided u WHERE u.ends) v",
);

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_verdict_is_noticed_by_nine_of_ten_seeds() {
    let mut found = 0;
    for n in 0..2 {
        let seed = new_seed();
        match play(seed, Play { fault: Some(DROPPED_VERDICT), operations: 500 + n, ..SHORT }).await {
            Err(finding) => {
                found += usize::from(finding.starts_with("a verdict is lost"));
                println!("{}", finding.lines().next().unwrap_or_default());
                if finding.contains("cannot be fin") {
                    println!("{finding}");
                }
            }
            Ok(_) => println!("nothing is found, PUNCHCARD_SEED={seed}"),
        }
    }
    assert!(found >= 9, "{found} of 10 seeds");
}

/// Faults as they are written: a guard forgotten, a lock, an entry.
const FAULTS: &[(&str, &str, &str)] = &[
    // A worker whose lease was given to another settles the other's run.
    ("settle", "q.lease_token = v.lease_token", "q.lease_token >= v.lease_token"),
    // Two workers take one job.
    ("claim", "FOR NO KEY UPDATE SKIP LOCKED", ""),
    // A cancel is forgotten.
    ("cancel", "SET cancel_requested_at = now()", "SET cancel_requested_at = NULL"),
    // What is released is in the balance, and no entry says so, now and then.
    ("settle", "WHERE p.amount > 0", "WHERE p.amount > 0 AND (p.kind = 'capture' OR random() > 0.1)"),
    // A second refund.
    ("refund", "l.job_id = p_job_id AND l.kind = 'adjust'", "false"),
    // Credits are dealt without a lock on them.
    ("deal_credits", "ORDER BY a.share FOR NO KEY UPDATE;", "ORDER BY a.share;"),
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_faults_are_found() {
    for (function, sound, faulty) in FAULTS {
        let mut found = None;
        for _ in 0..5 {
            found = play(new_seed(), Play { fault: Some((function, sound, faulty)), ..SHORT }).await.err();
            if found.is_some() {
                break;
            }
        }
        let found = found.unwrap_or_else(|| panic!("{function}: nobody noticed {sound} -> {faulty}"));
        println!("{function}: {sound} -> {faulty}: {}", found.lines().next().unwrap_or_default());
    }
}
