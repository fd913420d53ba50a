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

use lives::Lives;
use record::{Answer, Done, Entry, Finding};
use stage::{Actor, Stage};

/// How many lines of a trace are shown.
const SHOWN: usize = 60;

/// What to play.
#[derive(Clone, Copy)]
struct Play {
    /// In each act; what was answered is judged after each.
    operations: i64,
    acts: usize,
    /// Whether a worker's process is part of it.
    process: bool,
    /// A fault: in this function, this text is replaced by that.
    fault: Option<(&'static str, &'static str, &'static str)>,
}

/// Plays a history; answers how often what was done, or what was found, with the trace of the job.
async fn play(seed: u64, play: Play) -> Result<BTreeMap<&'static str, usize>, String> {
    let stage = Stage::new(play.process).await;
    if let Some((function, sound, faulty)) = play.fault {
        plant(&stage, function, sound, faulty).await;
    }
    let mut cast = cast(&stage, seed).await;
    let mut found = Ok(());
    for _ in 0..play.acts {
        stage.history.go_on(play.operations);
        cast = cast.into_iter().map(Actor::act).collect::<JoinSet<Actor>>().join_all().await;
        found = judge_answers(&stage).map(drop);
        if found.is_err() {
            break;
        }
    }
    if found.is_ok() {
        found = judge_end(&stage, seed).await;
    }
    let entries = stage.history.entries();
    match found {
        Ok(()) => Ok(count(&entries)),
        Err(finding) => Err(explain(seed, &entries, &finding)),
    }
}

/// All who take part at once, each with a connection of their own; the main ones, where no worker's process does.
async fn cast(stage: &Arc<Stage>, seed: u64) -> Vec<Actor> {
    let mut cast = vec![
        stage.actor("buyer 1", seed),
        stage.actor("buyer 2", seed),
        stage.actor("canceler", seed),
        stage.actor("worker 1", seed).with_client().await,
        stage.actor("worker 2", seed).with_client().await,
        stage.actor("outside 1", seed),
        stage.operator("operator 1", seed),
        stage.actor("observer", seed),
    ];
    if stage.process {
        cast.extend([
            stage.actor("process", seed),
            stage.actor("holder", seed).with_client().await,
            stage.actor("worker 3", seed).with_client().await,
            stage.actor("outside 2", seed),
            stage.operator("operator 2", seed),
            stage.actor("messenger", seed),
        ]);
    }
    cast
}

fn judge_answers(stage: &Stage) -> Result<Lives, Finding> {
    stage.history.finding().map_or(Ok(()), Err)?;
    check::check_answers(&stage.history.entries())
}

/// Once all that is unfinished is finished.
async fn judge_end(stage: &Arc<Stage>, seed: u64) -> Result<(), Finding> {
    let left = stage.actor("last", seed).finish_all().await;
    let lives = judge_answers(stage)?;
    if let Some(job) = left.first() {
        return Err(Finding::of(*job, format!("{} jobs cannot be finished", left.len())));
    }
    check::check_end(stage, &stage.history.entries(), &lives).await?;
    stage.operator("auditor", seed).audit().await;
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
    let counts = match play(seed, Play { operations: 5_000, acts: 1, process: true, fault: None }).await {
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

/// Short histories: a worker's process would hardly have started before they are over.
const SHORT: Play = Play { operations: 250, acts: 5, process: false, fault: None };

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
    let (first, mut noticed) = (new_seed(), 0);
    for seed in (0..10).map(|nth| first.wrapping_add(nth)) {
        match play(seed, Play { fault: Some(DROPPED_VERDICT), ..SHORT }).await {
            Err(found) => {
                println!("seed {seed}: {}", found.lines().next().unwrap_or_default());
                noticed += usize::from(found.starts_with("a verdict is lost"));
            }
            Ok(_) => println!("seed {seed}: nothing"),
        }
    }
    assert!(noticed >= 9, "{noticed} of 10 seeds from PUNCHCARD_SEED={first}");
}

/// Faults as they are written: a guard forgotten, a lock, an entry.
const FAULTS: &[(&str, &str, &str)] = &[
    // A worker whose lease was given to another settles the other's run.
    ("settle", "q.lease_token = v.lease_token", "q.lease_token >= v.lease_token"),
    // Two workers take one job.
    ("lock_due", "FOR NO KEY UPDATE SKIP LOCKED", ""),
    // A cancel is forgotten.
    ("cancel", "SET cancel_requested_at = now()", "SET cancel_requested_at = NULL"),
    // A credit too many is in the balance, and no entry says so, now and then.
    (
        "settle",
        "SET available = a.available + p.back,",
        "SET available = a.available + p.back + (random() > 0.9)::integer,",
    ),
    // A second refund.
    ("refund", "WHERE m.job_id = p_job_id)", "WHERE false)"),
    // Of two who buy by one key at once one is answered an error.
    ("enqueue", "ON CONFLICT DO NOTHING", ""),
    // Nobody is told to stop.
    ("check_in", "n.job_id IS NOT NULL, q.cancel_requested_at IS NOT NULL", "n.job_id IS NOT NULL, false"),
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_faults_are_found() {
    let first = new_seed();
    assert!(
        play(first, Play { acts: 1, ..SHORT }).await.is_ok(),
        "sound without one, PUNCHCARD_SEED={first}"
    );
    for (function, sound, faulty) in FAULTS {
        let mut found = None;
        for seed in (0..15).map(|nth| first.wrapping_add(nth)) {
            found = play(seed, Play { fault: Some((function, sound, faulty)), ..SHORT }).await.err();
            if found.is_some() {
                break;
            }
        }
        let Some(found) = found else {
            panic!("{function}: nobody noticed {sound} -> {faulty}, PUNCHCARD_SEED={first}");
        };
        println!("{function}: {sound} -> {faulty}: {}", found.lines().next().unwrap_or_default());
    }
}
