//! The property: whatever happens to jobs, in whatever order, the database does what was promised. And a proof that this
//! would be noticed: bugs are planted, and found.

use std::sync::atomic::{AtomicU64, Ordering};

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
    // Whoever cancels in the queue pays.
    ("settle", "AND q.lease_expires_at IS NOT NULL AND q.on_cancel", "AND q.on_cancel"),
    // What a metered job did not use is kept.
    ("settle", "greatest(least(v.used, q.price), 0)", "q.price"),
    // A poison job loops.
    (
        "settle",
        "THEN q.crashes + 1 ELSE q.crashes END,\n            lease_expires_at = NULL",
        "THEN q.crashes ELSE q.crashes END,\n            lease_expires_at = NULL",
    ),
    // A job that is to be canceled is tried again.
    ("settle", "q.cancel_requested_at IS NOT NULL OR (v.verdict = 'crash'", "(v.verdict = 'crash'"),
    // A job that errs for its input is free, whatever its kind says.
    ("settle", "v.verdict = 'reject' AND q.on_input_error = 'capture'", "false"),
    // A canceled job is given up as failed once its worker is lost.
    ("rescue", "WHEN canceled THEN 'cancel' WHEN expired", "WHEN expired"),
    // A second refund.
    ("refund", "l.job_id = p_job_id AND l.kind = 'adjust'", "false"),
    // A retry of what succeeded.
    ("check_retry_of", "ended.status = 'succeeded'", "false"),
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_bugs_are_found() {
    let lane = Lane::new().await;
    for (function, right, wrong) in BUGS {
        let sql = format!(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
             WHERE p.proname = '{function}' AND p.pronamespace = 'punchcard'::regnamespace"
        );
        let sound: String = lane.bench.rows(&sql).await[0].get(0);
        assert!(sound.contains(right), "{function}: {right} is not there to be spoiled");
        lane.bench.sql(&sound.replace(right, wrong)).await;
        let mut found = None;
        for seed in 0..600 {
            if divergence(&lane, seed).await.is_some() {
                found = Some(seed);
                break;
            }
        }
        println!("{function}: {wrong} is found by sequence {found:?}");
        assert!(found.is_some(), "{function}: nobody noticed {wrong}");
        lane.bench.sql(&sound).await;
    }
    assert_eq!(divergence(&lane, 0).await, None, "sound again");
}
