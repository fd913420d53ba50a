//! Metered prices: what was used is captured, the rest released.

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::credits;
use crate::support::Bench;

/// The entries of the job in the ledger, oldest first: kind, and what they did to `available` and `held`.
async fn entries(bench: &Bench, account: Uuid, id: &str) -> Vec<(String, i64, i64)> {
    let ledger = bench.get(account, "/api/credits/ledger?limit=100").await.body;
    let entries = ledger["data"].as_array().unwrap().iter().rev().filter(|entry| entry["job_id"] == id);
    let moved = |entry: &Value, what: &str| entry[what].as_i64().unwrap();
    entries
        .map(|entry| {
            let kind = entry["kind"].as_str().unwrap().to_owned();
            (kind, moved(entry, "available_delta"), moved(entry, "held_delta"))
        })
        .collect()
}

/// What is captured of ten credits, as everything shows it.
async fn assert_captured(bench: &Bench, account: Uuid, id: &str, captured: i64) {
    let job = bench.job(account, id).await;
    assert_eq!(
        (&job["status"], &job["credits"]),
        (&json!("succeeded"), &credits(0, captured, 10 - captured))
    );
    let all = [("hold", -10, 10), ("capture", 0, -captured), ("release", 10 - captured, captured - 10)];
    let expected: Vec<_> =
        all.into_iter().filter(|it| it.2 != 0).map(|(kind, to, of)| (kind.to_owned(), to, of)).collect();
    assert_eq!(entries(bench, account, id).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_is_captured_and_never_more_than_was_held() {
    let bench = Bench::new().await;
    bench.scripted_kind("metered = true").await;
    let worker = bench.scripted_worker();
    for (used, captured) in
        [(Some(3), 3), (Some(0), 0), (Some(10), 10), (Some(11), 10), (Some(i64::MAX), 10), (None, 10)]
    {
        let account = bench.account(30).await;
        let id = bench.script(account, json!([{ "do": "done", "used": used }])).await;
        assert_eq!(bench.job(account, &id).await["credits"], credits(10, 0, 0));
        assert_eq!(bench.balance(account).await, (20, 10), "the most that it may cost is held");
        worker.invoke(&json!({})).await.unwrap();
        assert_captured(&bench, account, &id, captured).await;
        assert_eq!(bench.balance(account).await, (30 - captured, 0), "{used:?}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_below_nothing_gives_no_credits_away() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("metered = true").await;
    let id = bench.script(account, json!([{ "do": "done", "used": -5 }])).await;
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    assert_captured(&bench, account, &id, 0).await;
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_settled_together_each_cost_what_they_used() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.scripted_kind("metered = true").await;
    let mut ids = Vec::new();
    for used in 0..10 {
        ids.push(bench.script(account, json!([{ "do": "done", "used": used }])).await);
    }
    assert_eq!(bench.balance(account).await, (0, 100));
    assert_eq!(bench.scripted_worker().invoke(&json!({})).await.unwrap()["succeeded"], 10);
    for (used, id) in (0..).zip(&ids) {
        assert_captured(&bench, account, id, used).await;
    }
    assert_eq!(bench.balance(account).await, (55, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_not_metered_costs_its_price_whatever_it_says_it_used() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("").await;
    let target = ScriptedServer::start(|_| {
        Response::json(200, json!({})).header("punchcard-credits-used", "nonsense")
    });
    let target = target.await.unwrap();
    bench.http_kind("priced", 10, &target.url("/")).await;
    let rust = bench.script(account, json!([{ "do": "done", "used": 1 }])).await;
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    let http = bench.post(account, json!({ "kind": "priced" }), None).await.body["id"].clone();
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_captured(&bench, account, &rust, 10).await;
    assert_captured(&bench, account, http.as_str().unwrap(), 10).await;
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_says_in_a_header_what_it_used() {
    let bench = Bench::new().await;
    let target = ScriptedServer::start(|request| match request.path.as_str() {
        "/silent" => Response::json(200, json!({})),
        "/empty" => Response::bytes(204, "").header("Punchcard-Credits-Used", "4"),
        path => Response::json(200, json!({})).header("Punchcard-Credits-Used", path.trim_start_matches('/')),
    })
    .await
    .unwrap();
    let poller = bench.poller();
    for (kind, captured) in [("silent", 10), ("empty", 4), ("0", 0), ("7", 7), ("10", 10), ("11", 10)] {
        let account = bench.account(10).await;
        bench.http_kind(kind, 10, &target.url(&format!("/{kind}"))).await;
        bench.sql("UPDATE punchcard.kinds SET metered = true").await;
        let id = bench.post(account, json!({ "kind": kind }), None).await.body["id"].clone();
        poller.invoke(&json!({})).await.unwrap();
        assert_captured(&bench, account, id.as_str().unwrap(), captured).await;
        assert_eq!(bench.balance(account).await, (10 - captured, 0), "{kind}");
    }
    let asked: Value = serde_json::from_slice(&target.requests()[0].body).unwrap();
    assert_eq!(asked["credits"], 10, "the target knows what it may use");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_that_cannot_be_read_charges_nobody() {
    let bench = Bench::new().await;
    let target = ScriptedServer::start(|request| {
        let used = ["-1", "1.5", "seven", "3, 5", "", "9223372036854775808"];
        let nth: usize = request.path.trim_start_matches('/').parse().unwrap();
        Response::json(200, json!({})).header("punchcard-credits-used", used[nth])
    })
    .await
    .unwrap();
    let account = bench.account(60).await;
    let mut ids = Vec::new();
    for nth in 0..6 {
        bench.http_kind(&format!("odd-{nth}"), 10, &target.url(&format!("/{nth}"))).await;
        bench.sql("UPDATE punchcard.kinds SET metered = true").await;
        ids.push(bench.post(account, json!({ "kind": format!("odd-{nth}") }), None).await.body["id"].clone());
    }
    bench.poller().invoke(&json!({})).await.unwrap();
    for id in &ids {
        let job = bench.job(account, id.as_str().unwrap()).await;
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("invalid_output")));
        assert_eq!((&job["credits"], &job["attempt"]), (&credits(0, 0, 10), &json!(1)));
    }
    assert_eq!((bench.balance(account).await, target.requests().len()), ((60, 0), 6));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_run_that_succeeds_costs_and_one_that_fails_costs_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("metered = true").await;
    let worker = bench.scripted_worker();
    let retried = bench.script(account, json!([{ "do": "err" }, { "do": "done", "used": 2 }])).await;
    let failed = bench.script(account, json!([{ "do": "final" }])).await;
    worker.invoke(&json!({})).await.unwrap();
    assert_eq!(bench.job(account, &retried).await["credits"], credits(10, 0, 0));
    assert_eq!(bench.job(account, &failed).await["credits"], credits(0, 0, 10));
    assert_eq!(bench.balance(account).await, (10, 10));
    bench.wait(2).await;
    worker.invoke(&json!({})).await.unwrap();
    assert_captured(&bench, account, &retried, 2).await;
    assert_eq!(bench.balance(account).await, (18, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_it_is_metered_is_a_term_of_the_purchase() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("metered = true").await;
    let done = json!([{ "do": "done", "used": 3 }]);
    let metered = bench.script(account, done.clone()).await;
    bench.sql("UPDATE punchcard.kinds SET metered = false, price = 20 WHERE name = 'test.scripted'").await;
    let priced = bench.script(account, done).await;
    assert_eq!(bench.balance(account).await, (0, 30));
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    assert_captured(&bench, account, &metered, 3).await;
    assert_eq!(bench.job(account, &priced).await["credits"], credits(0, 20, 0));
    assert_eq!(bench.balance(account).await, (7, 0));
    bench.assert_audit_is_clean().await;
}
