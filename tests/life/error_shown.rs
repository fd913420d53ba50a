//! Whose error a job shows: of a job that succeeded none, whatever its earlier runs met with.

use serde_json::{Value, json};
use shared::signing::callback_token;

use super::{
    help::tick,
    webhooks::{listener, tell},
};
use crate::support::{Bench, SIGNING_SECRET, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_succeeds_after_an_error_shows_none_and_its_runs_do() {
    let bench = Bench::new().await;
    bench.scripted_kind("backoff_seconds = 3600").await;
    let account = bench.account(30).await;
    let server = listener().await;
    tell(&bench, account, &server.url("/"), None).await;
    let retried = bench.script(account, json!([{ "do": "err" }, { "do": "done" }])).await;
    let outside = bench.script(account, json!([{ "do": "err" }, { "do": "wait", "seconds": 3_600 }])).await;
    let failed = bench.script(account, json!([{ "do": "err" }, { "do": "final" }])).await;
    tick(&bench).await;
    for id in [&retried, &outside, &failed] {
        let job = bench.job(account, id).await;
        assert_eq!(job["error"]["code"], "handler_error", "why it is to be tried again");
    }
    bench.wait(3_700).await;
    tick(&bench).await;
    let path = format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, outside.parse().unwrap(), 2));
    let said = json!({ "status": "succeeded" }).to_string();
    let answer =
        bench.request(event("POST", &path, &[("content-type", "application/json")], Some(&said))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    tick(&bench).await;

    let listed = bench.get(account, "/api/jobs?limit=100").await.body["data"].clone();
    let told: Vec<Value> =
        server.requests().iter().map(|said| serde_json::from_slice(&said.body).expect("JSON")).collect();
    for (id, status, error) in [
        (&retried, "succeeded", Value::Null),
        (&outside, "succeeded", Value::Null),
        (&failed, "failed", json!("handler_error")),
    ] {
        let job = bench.job(account, id).await;
        let listed = listed.as_array().unwrap().iter().find(|job| job["id"] == **id).expect("it is listed");
        let said = told.iter().find(|said| said["data"]["id"] == **id).expect("it was told");
        for shown in [&job, listed, &said["data"]] {
            assert_eq!((&shown["status"], &shown["error"]["code"]), (&json!(status), &error), "{shown}");
        }
        for view in ["punchcard.jobs_now", "punchcard_api.jobs"] {
            let row = bench.rows(&format!("SELECT error ->> 'code' FROM {view} WHERE id = '{id}'")).await;
            let code: Option<String> = row[0].get(0);
            assert_eq!(json!(code), error, "{view}");
        }
        // What its first run met with is that run's.
        let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body["data"].clone();
        assert_eq!(
            (&runs[0]["ended"], &runs[0]["error"]["code"]),
            (&json!("retry"), &json!("handler_error"))
        );
        assert_eq!(runs[1]["error"]["code"], error);
    }
    bench.assert_audit_is_clean().await;
}
