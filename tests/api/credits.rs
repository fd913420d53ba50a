//! `/api/credits`, and what service tokens may.

use serde_json::{Value, json};
use shared::db::tokens::token_hash;
use uuid::Uuid;

use crate::support::{Answer, Bench, event};

async fn token(bench: &Bench, name: &str, scopes: &str) -> String {
    let token = format!("pcs_{}", Uuid::new_v4().simple());
    let hash: String = token_hash(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    bench
        .sql(&format!(
            "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256)
             VALUES ('{name}', 1, ARRAY[{scopes}], '\\x{hash}')"
        ))
        .await;
    token
}

async fn post(bench: &Bench, path: &str, token: &str, key: Option<&str>, body: Value) -> Answer {
    let bearer = format!("bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    bench.request(event("POST", path, &headers, Some(&body.to_string()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_needs_the_scope_and_a_key_and_counts_once() {
    let bench = Bench::new().await;
    let granting = token(&bench, "payments", "'grant'").await;
    let enqueuing = token(&bench, "backend", "'enqueue'").await;
    let account = Uuid::new_v4();
    let grant = json!({ "account_id": account, "amount": 50, "reason": "bought 50" });
    let path = "/api/credits/grants";
    assert_eq!(post(&bench, path, &granting, None, grant.clone()).await.status, 400);
    assert_eq!(post(&bench, path, &enqueuing, Some("p1"), grant.clone()).await.status, 403);
    let user = crate::support::sign(&crate::support::claims(account));
    assert_eq!(post(&bench, path, &user, Some("p1"), grant.clone()).await.status, 403);
    assert_eq!(post(&bench, path, &granting, Some("p1"), grant.clone()).await.status, 201);
    let replay = post(&bench, path, &granting, Some("p1"), grant).await;
    assert_eq!((replay.status, &replay.headers["idempotent-replayed"]), (200, &json!("true")));
    let other = json!({ "account_id": account, "amount": 51 });
    assert_eq!(post(&bench, path, &granting, Some("p1"), other).await.status, 422);
    for amount in [json!(0), json!(-5), json!(i64::MAX)] {
        let body = json!({ "account_id": account, "amount": amount });
        assert_eq!(post(&bench, path, &granting, Some("p2"), body).await.status, 422);
    }
    for amount in [json!(1.0), json!("1"), json!(1e3)] {
        let body = json!({ "account_id": account, "amount": amount });
        assert_eq!(post(&bench, path, &granting, Some("p2"), body).await.status, 400);
    }
    assert_eq!(bench.get(account, "/api/credits").await.body, json!({ "available": 50, "held": 0 }));
    let ledger = bench.get(account, "/api/credits/ledger").await.body;
    assert_eq!((ledger["data"].as_array().unwrap().len(), &ledger["data"][0]["kind"]), (1, &json!("grant")));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_names_the_account_it_enqueues_for() {
    let bench = Bench::new().await;
    let backend = token(&bench, "backend", "'enqueue'").await;
    let account = bench.account(10).await;
    let named = json!({ "kind": "echo.http", "account_id": account });
    let job = post(&bench, "/api/jobs", &backend, None, named).await;
    assert_eq!((job.status, &job.body["account_id"]), (202, &json!(account)));
    assert_eq!(post(&bench, "/api/jobs", &backend, None, json!({ "kind": "echo.http" })).await.status, 400);
    let unknown = post(&bench, "/api/jobs", "pcs_unknown", None, json!({ "kind": "echo.http" })).await;
    assert_eq!(unknown.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_nobody_granted_anything_has_nothing() {
    let bench = Bench::new().await;
    assert_eq!(bench.get(Uuid::new_v4(), "/api/credits").await.body, json!({ "available": 0, "held": 0 }));
}
