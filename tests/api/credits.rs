//! `/api/credits`, and what service tokens may.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Bench, event};

async fn post(bench: &Bench, path: &str, token: &str, key: Option<&str>, body: Value) -> Answer {
    let bearer = format!("bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    bench.request(event("POST", path, &headers, Some(&body.to_string()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_needs_the_scope_and_a_key_and_counts_once() {
    let bench = Bench::new().await;
    let granting = bench.service_token("payments", &["grant"]).await;
    let enqueuing = bench.service_token("backend", &["enqueue"]).await;
    let account = Uuid::new_v4();
    let grant = json!({ "amount": 50, "reason": "bought 50" });
    let path = &format!("/api/credits/grants?account_id={account}");
    assert_eq!(post(&bench, path, &granting, None, grant.clone()).await.status, 400);
    assert_eq!(post(&bench, path, &enqueuing, Some("p1"), grant.clone()).await.status, 403);
    let user = crate::support::sign(&crate::support::claims(account));
    assert_eq!(post(&bench, path, &user, Some("p1"), grant.clone()).await.status, 403);
    assert_eq!(post(&bench, path, &granting, Some("p1"), grant.clone()).await.status, 201);
    let replay = post(&bench, path, &granting, Some("p1"), grant).await;
    assert_eq!((replay.status, &replay.headers["idempotent-replayed"]), (200, &json!("true")));
    for other in
        [json!({ "amount": 51, "reason": "bought 50" }), json!({ "amount": 50, "reason": "another" })]
    {
        assert_eq!(post(&bench, path, &granting, Some("p1"), other).await.status, 422);
    }
    for amount in [json!(0), json!(-5), json!(i64::MAX)] {
        let body = json!({ "amount": amount });
        assert_eq!(post(&bench, path, &granting, Some("p2"), body).await.status, 422);
    }
    for amount in [json!(1.0), json!("1"), json!(1e3), json!(9_223_372_036_854_775_808_u64)] {
        let body = json!({ "amount": amount });
        assert_eq!(post(&bench, path, &granting, Some("p2"), body).await.status, 400);
    }
    assert_eq!(
        bench.get(account, "/api/credits").await.body,
        json!({ "available": 50, "held": 0, "expiring": [] })
    );
    let ledger = bench.get(account, "/api/credits/ledger").await.body;
    assert_eq!((ledger["data"].as_array().unwrap().len(), &ledger["data"][0]["kind"]), (1, &json!("grant")));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_names_the_account_it_enqueues_for() {
    let bench = Bench::new().await;
    let backend = bench.service_token("backend", &["enqueue"]).await;
    let account = bench.account(10).await;
    let named = format!("/api/jobs?account_id={account}");
    let job = post(&bench, &named, &backend, None, json!({ "kind": "echo.http" })).await;
    assert_eq!((job.status, &job.body["account_id"]), (202, &json!(account)));
    assert_eq!(post(&bench, "/api/jobs", &backend, None, json!({ "kind": "echo.http" })).await.status, 400);
    let unknown = post(&bench, "/api/jobs", "pcs_unknown", None, json!({ "kind": "echo.http" })).await;
    assert_eq!(unknown.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_service_token_is_accepted_by_a_warm_function_within_seconds() {
    let bench = Bench::new().await;
    bench.api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap();
    let account = bench.account(100).await;
    let (path, enqueue) = (&format!("/api/jobs?account_id={account}"), json!({ "kind": "echo.http" }));
    let first = bench.service_token("first", &["enqueue"]).await;
    assert_eq!(post(&bench, path, &first, None, enqueue.clone()).await.status, 202);
    let second = bench.service_token("second", &["enqueue"]).await;
    let mut status = 401;
    for _ in 0..200 {
        if status == 401 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            status = post(&bench, path, &second, None, enqueue.clone()).await.status;
        }
    }
    assert_eq!(status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_ledgers_owner_turns_its_pages() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(100).await, bench.account(100).await);
    bench.enqueue(account, "qr.svg", 24).await;
    let (mut seen, mut path) = (Vec::new(), "/api/credits/ledger?limit=10".to_owned());
    loop {
        let page = bench.get(account, &path).await.body;
        seen.extend(page["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        let foreign = bench.get(other, &format!("/api/credits/ledger?cursor={cursor}")).await;
        assert_eq!((foreign.status, &foreign.body["code"]), (400, &json!("invalid_cursor")));
        path = format!("/api/credits/ledger?limit=10&cursor={cursor}");
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "{seen:?}");
    for query in ["limit=0", "limit=-1", "limit=x", "cursor=x", "order=up"] {
        assert_eq!(bench.get(account, &format!("/api/credits/ledger?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_account_and_an_empty_one_are_refused_alike() {
    let bench = Bench::new().await;
    let (nobody, spent) = (Uuid::new_v4(), bench.account(10).await);
    assert_eq!(bench.post(spent, json!({ "kind": "echo.http" }), None).await.status, 202);
    let mut bodies = Vec::new();
    for account in [nobody, spent] {
        let refused = bench.post(account, json!({ "kind": "echo.http" }), None).await;
        assert_eq!(refused.status, 402);
        let mut body = refused.body;
        assert!(body["request_id"].is_string());
        body["request_id"] = Value::Null;
        bodies.push(body);
    }
    assert_eq!(bodies[0], bodies[1], "no oracle for who has an account");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_nobody_granted_anything_has_nothing() {
    let bench = Bench::new().await;
    assert_eq!(
        bench.get(Uuid::new_v4(), "/api/credits").await.body,
        json!({ "available": 0, "held": 0, "expiring": [] })
    );
}

/// A cursor as anybody can make one.
fn forged(position: &[u8], of: Uuid) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest, Sha256};
    let tie = Sha256::new().chain_update(of.as_bytes()).chain_update(position).finalize();
    URL_SAFE_NO_PAD.encode([position, &tie[..8]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_somebody_made_up_is_answered_and_none_is_of_another_list() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let operator = bench.service_token("operator", &["operate"]).await;
    let last = ((1 << 48) - 1) * 1_000 + 999;
    let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000_000, last, last + 1, i64::MAX];
    for at in times {
        let place = [&at.to_be_bytes()[..], Uuid::max().as_bytes(), &0_i16.to_be_bytes()].concat();
        let path = format!("/api/credits/ledger?cursor={}", forged(&place, account));
        let answer = bench.get(account, &path).await;
        assert!(matches!(answer.status, 200 | 400), "{at}: {}", answer.body);
        let nanos = i128::from(at) * 1_000;
        let place = [&nanos.to_be_bytes()[..], Uuid::max().as_bytes()].concat();
        let body = json!({ "kind": "qr.svg", "cursor": forged(&place, Uuid::nil()) });
        for path in ["/api/jobs:retry", "/api/jobs:retry?validate_only=true"] {
            let answer = post(&bench, path, &operator, None, body.clone()).await;
            assert!(matches!(answer.status, 200 | 400), "{at}: {}", answer.body);
        }
        let place = [&0_i16.to_be_bytes()[..], &1_i64.to_be_bytes(), &at.to_be_bytes(), &[0; 32]].concat();
        let path = format!("/api/credits/statement?month=2026-11&cursor={}", forged(&place, account));
        let answer = bench.get(account, &path).await;
        assert!(matches!(answer.status, 200 | 400 | 410), "{at}: {}", answer.body);
    }
    let job = bench.get(account, "/api/jobs").await.body["data"][0]["id"].as_str().unwrap().to_owned();
    let events = bench.get(account, &format!("/api/jobs/{job}/events?limit=1")).await.body;
    let cursor = events["next_cursor"].as_str().unwrap();
    assert_eq!(bench.get(account, &format!("/api/jobs/{job}/events?cursor={cursor}")).await.status, 200);
    assert_eq!(bench.get(account, &format!("/api/jobs/{job}/runs?cursor={cursor}")).await.status, 400);
}
