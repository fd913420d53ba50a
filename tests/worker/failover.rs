//! A primary that is demoted for a moment: connections that are sound, and of no use.

use std::time::Duration;

use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;

use crate::support::{Bench, bearer, binary, environment, event};

/// The primary goes, and who connects to its successor can only read; or that is promoted. Behind a pooler, which knows nothing
/// of it, connections end then, too.
async fn make_read_only(bench: &Bench, read_only: bool) {
    let set = if read_only {
        "SET default_transaction_read_only = on"
    } else {
        "RESET default_transaction_read_only"
    };
    bench.sql(&format!("ALTER DATABASE {} {set}", bench.database)).await;
    if read_only || std::env::var_os("PUNCHCARD_TEST_POOLER_URL").is_some() {
        let backends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        bench.count(backends).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_outlive_a_server_that_was_read_only_for_a_while() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    let target = ScriptedServer::start(|_| Response::json(200, json!({})).delay(Duration::from_secs(2)))
        .await
        .unwrap();
    bench.http_kind("slow", 10, &target.url("/")).await;
    bench.enqueue(account, "slow", 20).await;
    let poller = bench.poller();
    let tick = tokio::spawn(async move { poller.invoke(&json!({})).await });
    while target.requests().len() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    make_read_only(&bench, true).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    make_read_only(&bench, false).await;
    // Perhaps it has failed, for want of a claim; what it had run is recorded all the same.
    let _ = tick.await.unwrap();
    let jobs = bench.get(account, "/api/jobs?limit=100").await.body;
    let succeeded =
        jobs["data"].as_array().unwrap().iter().filter(|job| job["status"] == "succeeded").count();
    assert_eq!((succeeded, target.requests().len()), (20, 20), "each ran once: {jobs}");
    assert_eq!(bench.balance(account).await, (800, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_unavailable_while_the_server_is_read_only_and_then_finds_the_primary() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    make_read_only(&bench, true).await;
    let api = Function::new(binary("api"), environment(&bench.url)).max_concurrency(1);
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let post = event("POST", "/api/jobs", &headers, Some(r#"{"kind":"qr.svg","input":{"text":"t"}}"#));
    for _ in 0..2 {
        let answer = api.invoke(&post).await.unwrap();
        assert_eq!(answer["statusCode"], 503, "{answer}");
        assert!(answer["headers"]["retry-after"].is_string(), "{answer}");
    }
    make_read_only(&bench, false).await;
    let answer = api.invoke(&post).await.unwrap();
    assert_eq!(answer["statusCode"], 202, "the next connection: {answer}");
    assert_eq!(bench.balance(account).await, (99, 1));
    bench.assert_audit_is_clean().await;
}
