//! Canceling a job between two runs: what was done for it is paid for as its kind's `on_cancel` says.

use serde_json::{Value, json};
use shared::signing::callback_token;
use uuid::Uuid;

use super::{
    assert_refused, credits,
    help::{books, tick},
};
use crate::{
    cli::{punchcard, said},
    support::{Bench, SIGNING_SECRET, event},
};

/// A job that has followed its script up to where nothing is due, and waits in the queue.
async fn between(bench: &Bench, account: Uuid, steps: Value) -> String {
    let id = bench.script(account, steps.clone()).await;
    for _ in steps.as_array().expect("steps") {
        tick(bench).await;
    }
    assert_eq!(bench.job(account, &id).await["status"], "queued");
    id
}

async fn cancel(bench: &Bench, account: Uuid, id: &str) -> Value {
    let answer = bench.act(account, &format!("/api/jobs/{id}/cancel")).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("canceled")), "{}", answer.body);
    assert_eq!(bench.job(account, id).await, answer.body, "as it is shown afterwards");
    answer.body["credits"].clone()
}

/// Settles what is claimed of `test.scripted` now, as a worker would.
async fn claim_and_settle(bench: &Bench, verdict: &str) {
    bench
        .sql(&format!(
            "SELECT punchcard.settle(array_agg(job_id), array_agg(lease_token), array_agg('{verdict}'::text),
                 array_agg(0::float8), array_agg(NULL::text), array_agg(NULL::text))
             FROM punchcard.claim(5, '{{test.scripted}}', true, 60, 60)"
        ))
        .await;
}

fn away() -> Value {
    json!({ "do": "unavailable", "retry_after": 3_600 })
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_done_is_paid_for_and_none_that_was_not() {
    for metered in ["false", "true"] {
        let bench = Bench::new().await;
        bench
            .scripted_kind(&format!("on_cancel = 'capture', metered = {metered}, backoff_seconds = 3600"))
            .await;
        let account = bench.account(1_000).await;
        let err = json!({ "do": "err" });
        let nap = json!({ "do": "snooze", "seconds": 3_600 });
        let yields = json!({ "do": "yield", "save": 7 });
        // What it did, and whether that was work.
        let mut spent = 0;
        for (steps, paid) in [
            (json!([err]), true),
            (json!([nap]), true),
            (json!([yields, away()]), true),
            (json!([away()]), false),
        ] {
            let id = between(&bench, account, steps.clone()).await;
            let cost = if paid { credits(0, 10, 0) } else { credits(0, 0, 10) };
            assert_eq!(cancel(&bench, account, &id).await, cost, "{steps}, metered {metered}");
            spent += if paid { 10 } else { 0 };
            assert_eq!(bench.balance(account).await, (1_000 - spent, 0), "{steps}");
        }
        // Many runs of work are one price; and what a later run finds away takes nothing back.
        let id = between(&bench, account, json!([yields, yields, yields, away()])).await;
        let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
        assert_eq!(runs["data"].as_array().unwrap().len(), 4);
        assert_eq!(cancel(&bench, account, &id).await, credits(0, 10, 0));
        // It is given back as any captured price is, once.
        let refund = punchcard(&bench, &["credits", "refund", &id]);
        assert_eq!(said(&refund), format!("refunded 10 to {account}\n"));
        assert_eq!(bench.balance(account).await, (1_000 - spent, 0));
        bench.assert_audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_a_run_and_what_was_handed_back_before_it_began_is_none() {
    let bench = Bench::new().await;
    bench.scripted_kind("on_cancel = 'capture'").await;
    let account = bench.account(50).await;
    let crashed = bench.script(account, json!([{ "do": "abort" }])).await;
    bench.scripted_worker().invoke(&json!({})).await.expect_err("killed");
    bench.wait(900).await;
    bench.sql("SELECT punchcard.rescue(10)").await;
    assert_eq!(bench.job(account, &crashed).await["crashes"], 1);
    assert_eq!(cancel(&bench, account, &crashed).await, credits(0, 10, 0));

    // Claimed and handed back, as by a worker with no time left: it has a `started_at`, and cost nobody
    // anything.
    let returned = bench.script(account, json!([{ "do": "done" }])).await;
    claim_and_settle(&bench, "return").await;
    assert!(bench.job(account, &returned).await["started_at"].is_string());
    assert_eq!(cancel(&bench, account, &returned).await, credits(0, 0, 10));

    // Asked to stop while it was claimed again, and handed back: what it had done before is paid for, and
    // only that.
    for (before, cost) in [("snooze", credits(0, 10, 0)), ("return", credits(0, 0, 10))] {
        let id = bench.script(account, json!([{ "do": "done" }])).await;
        claim_and_settle(&bench, before).await;
        let lease = "SELECT count(*) FROM punchcard.claim(5, '{test.scripted}', true, 60, 60)";
        assert_eq!(bench.count(lease).await, 1);
        assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.status, 202);
        bench
            .sql("SELECT punchcard.settle(array_agg(job_id), array_agg(lease_token), array_agg('return'::text),
                      array_agg(0::float8), array_agg(NULL::text), array_agg(NULL::text)) FROM punchcard.queue")
            .await;
        let job = bench.job(account, &id).await;
        assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &cost), "{before}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_outside_counts_once_it_is_to_be_tried_again() {
    let bench = Bench::new().await;
    bench.scripted_kind("on_cancel = 'capture', backoff_seconds = 3600").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "wait", "seconds": 3_600 }])).await;
    tick(&bench).await;
    let path = format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, id.parse().unwrap(), 1));
    let said = json!({ "status": "failed", "error": { "message": "no GPU", "retryable": true } }).to_string();
    let answer =
        bench.request(event("POST", &path, &[("content-type", "application/json")], Some(&said))).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("queued")), "{}", answer.body);
    assert_eq!(cancel(&bench, account, &id).await, credits(0, 10, 0));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_refuses_once_it_runs_refuses_between_runs_too() {
    let bench = Bench::new().await;
    bench.scripted_kind("on_cancel = 'refuse', backoff_seconds = 3600").await;
    let account = bench.account(50).await;
    let started = between(&bench, account, json!([{ "do": "err" }])).await;
    let before = books(&bench).await;
    let refused = bench.act(account, &format!("/api/jobs/{started}/cancel")).await;
    assert_refused(&refused, 409, "not_cancelable");
    assert_eq!(books(&bench).await, before, "and nothing changes");
    for steps in [json!([away()]), json!([{ "do": "done" }])] {
        let id = bench.script(account, steps.clone()).await;
        if steps[0] == away() {
            tick(&bench).await;
        }
        assert_eq!(cancel(&bench, account, &id).await, credits(0, 0, 10), "{steps}");
    }
    // By `on_cancel = 'release'` it is free at any time.
    bench.sql("UPDATE punchcard.kinds SET on_cancel = 'release' WHERE name = 'test.scripted'").await;
    let id = between(&bench, account, json!([{ "do": "err" }])).await;
    assert_eq!(cancel(&bench, account, &id).await, credits(0, 0, 10));
    assert_eq!(bench.balance(account).await, (40, 10));
    bench.assert_audit_is_clean().await;
}
