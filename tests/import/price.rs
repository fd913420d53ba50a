//! Silence about money is no answer: what was paid for a queued job is said, or nothing is taken over.

use uuid::Uuid;

use super::{lines_with, old_table, refused, said};
use crate::support::Bench;

const PLAIN: &[&str] = &["--from", "public.jobs", "--pause", "0"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [PLAIN, more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_jobs_are_taken_over_at_a_price_that_was_said_and_at_no_other() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    old_table(&bench, &[account], 20).await;
    // No column looks like a price: then, too, somebody has to say it.
    for args in [&[][..], &["--dry-run"], &["--map", "price="], &["--map", "price=", "--dry-run"]] {
        let text = refused(&bench, &with(args)).await;
        lines_with(&text, &["20 jobs are to be run", "--map price=COLUMN", "--price CREDITS", "--price 0"]);
    }
    for (column, named) in [
        ("cost integer DEFAULT 3", "--map price=cost if the column cost says it"),
        ("\"creditsSpent\" bigint DEFAULT 3", "--map price=cost if that column says it (or creditsSpent)"),
    ] {
        bench.sql(&format!("ALTER TABLE public.jobs ADD {column}")).await;
        for args in [&[][..], &["--dry-run"]] {
            lines_with(&refused(&bench, &with(args)).await, &[named, "--price CREDITS", "--price 0"]);
        }
    }

    // By the column that the message names: each failure gives back what was paid.
    let done = said(&bench, &with(&["--map", "price=cost"])).await;
    lines_with(&done, &["imported: 15 as history, 20 to be run"]);
    assert_eq!(bench.balance(account).await, (0, 60));
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (6, 0), "two of twenty failed, and were released");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_said_by_a_zero_and_history_needs_no_price() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    old_table(&bench, &[account], 20).await;
    bench.sql("ALTER TABLE public.jobs ADD cost integer DEFAULT 3").await;
    lines_with(&said(&bench, &with(&["--price", "0"])).await, &["imported: 15 as history, 20 to be run"]);
    let free = "SELECT count(*) FROM punchcard.jobs_now WHERE status = 'queued' AND price = 0";
    assert_eq!((bench.count(free).await, bench.balance(account).await), (20, (0, 0)));
    // Nothing is left to be taken over: what the old worker ends is copied, and nobody is asked.
    bench
        .sql("UPDATE public.jobs SET status = 'completed', completed_at = now() WHERE status = 'processing'")
        .await;
    lines_with(&said(&bench, PLAIN).await, &["imported: 5 as history, 0 to be run"]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_is_asked_for_its_price_again() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 4).await;
    // Marked by an earlier run, and not taken over yet.
    bench.sql("UPDATE public.jobs SET status = 'punchcard' WHERE status = 'queued'").await;
    lines_with(&refused(&bench, PLAIN).await, &["4 jobs are to be run", "--price 0"]);
    lines_with(&said(&bench, &with(&["--price", "3"])).await, &["4 to be run"]);
}
