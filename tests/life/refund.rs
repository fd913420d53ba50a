//! Refunds by the operator.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{credits, until_running};
use crate::{
    cli::{punchcard, refused, said},
    support::Bench,
};

fn refund(bench: &Bench, job: &str) -> std::process::Output {
    punchcard(bench, &["credits", "refund", job, "--reason", "a bad day"])
}

/// A scripted job that has run once.
async fn ran(bench: &Bench, account: Uuid, step: Value) -> String {
    let id = bench.script(account, json!([step])).await;
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    id
}

/// Refunds it: what was captured is available again, the job says so, and it is not to be had twice.
async fn assert_refunded(bench: &Bench, account: Uuid, id: &str, amount: i64) {
    let (before, (available, held)) = (bench.job(account, id).await, bench.balance(account).await);
    assert_eq!((&before["credits"]["captured"], &before["credits"]["refunded"]), (&json!(amount), &json!(0)));
    assert_eq!(said(&refund(bench, id)), format!("refunded {amount} to {account}\n"));
    let mut expected = before.clone();
    expected["credits"]["refunded"] = json!(amount);
    assert_eq!(bench.job(account, id).await, expected, "nothing else of the job has changed");
    assert_eq!(bench.balance(account).await, (available + amount, held));

    assert!(refused(&refund(bench, id)).contains("already_refunded"));
    assert_eq!(
        (bench.job(account, id).await, bench.balance(account).await),
        (expected, (available + amount, held))
    );
    let entry = bench.get(account, "/api/credits/ledger?limit=1").await.body["data"][0].clone();
    assert_eq!(
        (&entry["kind"], &entry["job_id"], &entry["reason"]),
        (&json!("adjust"), &json!(id), &json!("a bad day"))
    );
    assert_eq!((&entry["available_delta"], &entry["held_delta"]), (&json!(amount), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_captured_for_a_job_that_succeeded_is_given_back_once() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("").await;
    let id = ran(&bench, account, json!({ "do": "done" })).await;
    let other = ran(&bench, account, json!({ "do": "done" })).await;
    assert_eq!(bench.balance(account).await, (10, 0));
    assert_refunded(&bench, account, &id, 10).await;
    assert_eq!(bench.job(account, &other).await["credits"], credits(0, 10, 0));
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
    // It can be spent again.
    let next = ran(&bench, account, json!({ "do": "done" })).await;
    assert_eq!(
        (bench.job(account, &next).await["status"].clone(), bench.balance(account).await),
        (json!("succeeded"), (10, 0))
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_metered_job_what_it_used_is_given_back() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("metered = true").await;
    let id = ran(&bench, account, json!({ "do": "done", "used": 4 })).await;
    assert_eq!(bench.balance(account).await, (6, 0));
    assert_refunded(&bench, account, &id, 4).await;
    assert_eq!(bench.balance(account).await, (10, 0), "and not what was released before");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_or_canceled_job_cost_is_given_back() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("on_input_error = 'capture', on_cancel = 'capture'").await;
    let failed = ran(&bench, account, json!({ "do": "reject" })).await;
    assert_eq!(bench.job(account, &failed).await["status"], "failed");

    let canceled = bench.script(account, json!([{ "do": "stop_then_err" }])).await;
    let worker = bench.scripted_worker();
    let tick = worker.start_invoke(&json!({}));
    until_running(&bench, account, &canceled).await;
    assert!(
        refused(&refund(&bench, &canceled)).contains("nothing_captured"),
        "not while it may still cost nothing"
    );
    assert_eq!(bench.act(account, &format!("/api/jobs/{canceled}/cancel")).await.status, 202);
    assert_eq!(tick.wait().await.unwrap()["canceled"], 1);

    assert_eq!(bench.balance(account).await, (0, 0));
    assert_refunded(&bench, account, &failed, 10).await;
    assert_refunded(&bench, account, &canceled, 10).await;
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_was_captured_there_is_nothing_to_refund() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.scripted_kind("metered = true").await;
    let failed = ran(&bench, account, json!({ "do": "final" })).await;
    let used_nothing = ran(&bench, account, json!({ "do": "done", "used": 0 })).await;
    let free =
        bench.post(account, json!({ "kind": "free" }), None).await.body["id"].as_str().unwrap().to_owned();
    let canceled = bench.script(account, json!([{ "do": "done" }])).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{canceled}/cancel")).await.status, 200);
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    for id in [&failed, &used_nothing, &free, &canceled, &queued] {
        let before = bench.job(account, id).await;
        assert!(refused(&refund(&bench, id)).contains("nothing_captured"));
        assert_eq!(bench.job(account, id).await, before);
    }
    assert!(refused(&refund(&bench, &Uuid::new_v4().to_string())).contains("not_found"));
    assert!(!refund(&bench, "seven").status.success());
    let reason = "x".repeat(501);
    let charged = ran(&bench, account, json!({ "do": "done" })).await;
    // The one still queued ran too.
    assert_eq!(bench.balance(account).await, (30, 0));
    let wordy = punchcard(&bench, &["credits", "refund", &charged, "--reason", &reason]);
    assert!(refused(&wordy).contains("reason_too_long"));
    assert_eq!(bench.balance(account).await, (30, 0));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'adjust'").await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_at_once_one_refunds() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("").await;
    let id = ran(&bench, account, json!({ "do": "done" })).await;
    // Both wait for the account, then one after the other goes on.
    bench.sql(&format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE")).await;
    let outputs = std::thread::scope(|scope| {
        let (bench, id) = (&bench, &id);
        let operators = [(); 2].map(|()| scope.spawn(move || refund(bench, id)));
        let go_on = async {
            bench.until_waiting_for_locks(2).await;
            bench.sql("COMMIT").await;
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(go_on));
        operators.map(|operator| operator.join().unwrap())
    });
    let (done, not): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!(done.len(), 1);
    assert!(refused(not[0]).contains("already_refunded"));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}
