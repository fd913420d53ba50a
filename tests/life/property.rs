//! The property: whatever happens to jobs, in whatever order, the database does what was promised. And a proof that this
//! would be noticed: bugs are planted, and found.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::{lane::Lane, sequences::divergence};

/// Sequences at once, each in a database of its own.
const LANES: usize = 3;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// `cargo xtask test --sequences N` runs more of them, `PUNCHCARD_SEED` others.
#[tokio::test(flavor = "multi_thread")]
async fn random_sequences_end_as_promised_with_a_clean_audit() {
    let sequences = setting("PUNCHCARD_SEQUENCES").unwrap_or(2_000);
    let first = setting("PUNCHCARD_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 32);
    let next = AtomicU64::new(0);
    let lanes = join_all((0..LANES).map(|_| Lane::new())).await;
    let run = async |lane: &Lane| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= sequences {
                return;
            }
            if let Some(trace) = divergence(lane, first + number).await {
                panic!(
                    "sequence {number} of {sequences} diverged, PUNCHCARD_SEED={}:\n{trace}",
                    first + number
                );
            }
        }
    };
    join_all(lanes.iter().map(run)).await;
    println!("{sequences} sequences from PUNCHCARD_SEED={first}: no divergence");
}

/// Bugs as they are written: a guard forgotten, a count missed, the wrong price.
const BUGS: &[(&str, &str, &str)] = &[
    // A worker whose lease was given to another settles the other's run.
    ("settle", "q.lease_token = v.lease_token", "q.lease_token >= v.lease_token"),
    // So does one whose lease has run out.
    ("settle", "q.lease_expires_at > clock_timestamp()", "q.lease_expires_at IS NOT NULL"),
    // Whoever cancels before the first run pays, or after runs that found their help away.
    ("captured", "AND p_under_way)", "AND true)"),
    ("settle", "AND (v.verdict <> 'snooze' OR v.error IS NULL)", ""),
    // Whoever cancels between two runs pays nothing, or may though the kind refuses.
    ("captured", "OR p_has_run", ""),
    ("cancel", "OR job.has_run)", ")"),
    // What a metered job did not use is kept.
    ("captured", "THEN greatest(p_used, 0) ELSE p_price END", "THEN p_price ELSE p_price END"),
    // A poison job loops.
    (
        "settle",
        "THEN q.crashes + 1 ELSE q.crashes END,\n            lease_expires_at = NULL",
        "THEN q.crashes ELSE q.crashes END,\n            lease_expires_at = NULL",
    ),
    // A job that is to be canceled is tried again.
    ("settle", "q.cancel_requested_at IS NOT NULL OR (v.verdict = 'crash'", "(v.verdict = 'crash'"),
    // A job that errs for its input is free, whatever its kind says.
    ("captured", "p_on_input_error = 'capture'", "p_on_input_error = 'refuse'"),
    // A canceled job is given up as failed once its worker is lost.
    ("lapsed", "WHEN canceled THEN 'cancel' WHEN waiting", "WHEN waiting"),
    // A second refund.
    ("refund", "WHERE m.job_id = p_job_id)", "WHERE false)"),
    // A retry of what succeeded.
    ("check_retry_of", "ended.status = 'succeeded'", "false"),
    // A call back by any token.
    ("call_back", "job.lease_token <> p_lease_token\n        OR ", ""),
    // One after its time, or of a run that is over.
    ("call_back", "> clock_timestamp()) IS NOT TRUE", "IS NULL)"),
    ("call_back", "> clock_timestamp()) IS NOT TRUE", "> clock_timestamp()) IS FALSE"),
    // The last attempt's error is tried again.
    ("call_back", "job.attempt >= job.max_attempts", "false"),
    // One that comes before its worker has said that it waits is refused.
    ("call_back", "coalesce(job.lease_expires_at, job.waiting_until)", "job.waiting_until"),
    // What nobody called back for is tried again, or paid for.
    ("lapsed", "WHEN waiting THEN 'overdue'", "WHEN waiting THEN 'crash'"),
    ("captured", "CASE WHEN p_verdict = 'complete'\n", "CASE WHEN p_verdict IN ('complete', 'overdue')\n"),
    // A wait outlives its job.
    (
        "settle",
        "least(now() + make_interval(secs => v.delay), q.expires_at)",
        "now() + make_interval(secs => v.delay)",
    ),
    // A waiting job is canceled for nothing, or whatever its kind says.
    (
        "settle",
        "p_under_way => coalesce(q.lease_expires_at, q.waiting_until) IS NOT NULL",
        "p_under_way => q.lease_expires_at IS NOT NULL",
    ),
    (
        "cancel",
        "coalesce(job.lease_expires_at, job.waiting_until) IS NOT NULL",
        "job.lease_expires_at IS NOT NULL",
    ),
    // To yield spends an attempt, or a call back gives one back.
    (
        "settle",
        "attempt = CASE WHEN v.verdict IN ('retry', 'wait')",
        "attempt = CASE WHEN v.verdict IN ('retry', 'wait', 'yield')",
    ),
    (
        "settle",
        "attempt = CASE WHEN v.verdict IN ('retry', 'wait')",
        "attempt = CASE WHEN v.verdict = 'retry'",
    ),
    // What was saved is lost to an error or a crash, or to a worker that says nothing new, or is an old run's.
    ("settle", "coalesce(v.output::json, q.checkpoint)", "v.output::json"),
    ("check_in", "coalesce(s.checkpoint::json, q.checkpoint)", "s.checkpoint::json"),
    ("check_in", "q.lease_token = s.lease_token AND q.lease_expires_at", "q.lease_expires_at"),
    // Nobody is told of an end, of a start, or to drop what was canceled or given up.
    ("settle", "AND 'job.' || e.status::text = ANY (w.events)", "AND false"),
    ("settle", "e.webhook -> 'events' ? ('job.' || e.status::text)", "false"),
    ("claim", "c.webhook -> 'events' ? 'job.running'", "false"),
    ("settle", "v.verdict IN ('cancel', 'overdue') AND", "v.verdict = 'cancel' AND"),
    ("settle", "v.verdict = 'wait' OR (v.verdict", "(v.verdict"),
    // Who did not ask is told, or who wants no more.
    ("settle", "e.webhook -> 'events' ? ('job.' || e.status::text)", "true"),
    ("settle", "w.disabled_at IS NULL AND", ""),
    ("claim", "w.disabled_at IS NULL AND", ""),
    ("claim_deliveries", "CASE WHEN w.disabled_at IS NULL THEN w.url END", "w.url"),
    ("settle_deliveries", "o.job_id = ANY (ARRAY[e.job_id]) AND", "false AND"),
    ("settle_deliveries", "w.url = g.sent_to", "true"),
    // A message is sent by two at once, or what one says of it counts after another took it.
    ("claim_deliveries", "d.next_at <= now()", "true"),
    ("settle_deliveries", "b.attempt = v.attempt AND", ""),
    // What became of one sending counts twice.
    ("settle_deliveries", "b.attempt = v.attempt AND b.settled < v.attempt", "b.attempt = v.attempt"),
];

/// Sequences that notice what few others do: they go first, and most bugs need no others.
const TELLING: [u64; 12] = [18, 32, 35, 36, 37, 51, 79, 93, 157, 178, 215, 300];

#[tokio::test(flavor = "multi_thread")]
async fn planted_bugs_are_found() {
    let next = AtomicUsize::new(0);
    let lanes = join_all((0..2).map(|_| Lane::new())).await;
    let run = async |lane: &Lane| {
        while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            find(lane, bug).await;
        }
        assert_eq!(divergence(lane, 0).await, None, "sound again");
    };
    join_all(lanes.iter().map(run)).await;
}

async fn find(lane: &Lane, (function, right, wrong): &(&str, &str, &str)) {
    let sql = format!(
        "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
         WHERE p.proname = '{function}' AND p.pronamespace = 'punchcard'::regnamespace"
    );
    let sound: String = lane.bench.rows(&sql).await[0].get(0);
    assert!(sound.contains(right), "{function}: {right} is not there to be spoiled");
    lane.bench.sql(&sound.replace(right, wrong)).await;
    for seed in TELLING.into_iter().chain(0..1_500) {
        if divergence(lane, seed).await.is_some() {
            println!("{function}: {right} -> {wrong} is found by sequence {seed}");
            lane.bench.sql(&sound).await;
            return;
        }
    }
    panic!("{function}: nobody noticed {right} -> {wrong}");
}
