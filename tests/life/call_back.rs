//! Waiting outside: the handler hands its job on and is done; whoever does the work calls back.

use local::scripted::{Request, Response, ScriptedServer};
use serde_json::{Value, json};
use shared::signing::callback_token;
use uuid::Uuid;

use super::{
    assert_refused, credits,
    help::{books, code, tick},
};
use crate::support::{Answer, Bench, PUBLIC_URL, SIGNING_SECRET, documented::assert_schema, event};

const NULL: Value = Value::Null;

/// The path to call back for a run, by its number.
fn path(id: &str, run: i64) -> String {
    format!("/api/callbacks/{}", callback_token(SIGNING_SECRET, id.parse().unwrap(), run))
}

/// POST by somebody who has nothing but the URL.
async fn call(bench: &Bench, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    bench.request(event("POST", path, &headers, Some(&body.to_string()))).await
}

/// A kind that waits for half an hour, with these terms; its account, and a job of it that waits.
async fn waiting(bench: &Bench, terms: &str, credits: i64) -> (Uuid, String) {
    bench.scripted_kind(terms).await;
    let account = bench.account(credits).await;
    let id = bench.script(account, json!([{ "do": "wait", "seconds": 1_800 }, { "do": "done" }])).await;
    assert_eq!(tick(bench).await["waiting"], 1);
    (account, id)
}

async fn status(bench: &Bench, account: Uuid, id: &str) -> String {
    bench.job(account, id).await["status"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_answers_202_calls_back_and_the_job_is_done() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(202, json!({ "id": "p-1" }))).await.unwrap();
    bench.http_kind("picture", 10, &target.url("/")).await;
    let id =
        bench.post(account, json!({ "kind": "picture" }), None).await.body["id"].as_str().unwrap().to_owned();
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["claimed"], &summary["waiting"]), (&json!(1), &json!(1)));

    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("running"), &json!(1)));
    assert!(job["waiting_until"].is_string(), "{job}");
    assert_eq!(job["credits"], credits(10, 0, 0));
    // No lease, and no worker's: nobody takes it back or runs it again, however long it waits.
    let leased = "SELECT count(*) FROM punchcard.queue WHERE lease_expires_at IS NOT NULL";
    assert_eq!(bench.count(leased).await, 0);
    bench.wait(3_000).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!((&summary["claimed"], &summary["rescued"]), (&json!(0), &json!(0)));

    let said: Value = serde_json::from_slice(&target.requests()[0].body).unwrap();
    assert_schema("TargetRequest", &said, &[]);
    let callback =
        said["callback_url"].as_str().unwrap().strip_prefix(PUBLIC_URL).expect("our URL").to_owned();
    let output = json!({ "url": "https://cdn.example.com/1.png" });
    let answer = call(&bench, &callback, &json!({ "status": "succeeded", "output": output })).await;
    assert_eq!(
        (answer.status, answer.body),
        (200, json!({ "status": "succeeded", "cancel_requested": false }))
    );
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["status"], &job["output"], &job["waiting_until"]),
        (&json!("succeeded"), &output, &NULL)
    );
    assert_eq!((bench.balance(account).await, &job["credits"]), ((0, 0), &credits(0, 10, 0)));
    assert_eq!(target.requests().len(), 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_ends_a_job_once() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "", 10).await;
    assert_eq!(call(&bench, &path(&id, 1), &json!({ "status": "succeeded" })).await.status, 200);
    let before = books(&bench).await;
    for body in
        [json!({ "status": "succeeded" }), json!({ "status": "failed" }), json!({ "status": "running" })]
    {
        assert_refused(&call(&bench, &path(&id, 1), &body).await, 409, "callback_used");
    }
    assert_eq!(books(&bench).await, before);
    assert_eq!(
        (status(&bench, account, &id).await.as_str(), bench.balance(account).await),
        ("succeeded", (0, 0))
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_fails_the_job_unless_it_may_be_tried_again() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 2, on_input_error = 'capture'").await;
    let account = bench.account(80).await;
    let wait = json!({ "do": "wait", "seconds": 1_800 });
    let again = json!({ "code": "busy", "message": "no GPU", "retryable": true });
    // What is said, the job's status, its error's code and message, and what was captured.
    let cases = [
        (json!({ "status": "failed" }), "failed", "target_error", "no reason was given", 0),
        (json!({ "status": "failed", "error": "NSFW" }), "failed", "target_error", "NSFW", 0),
        (json!({ "status": "failed", "error": { "code": "oom" } }), "failed", "target_error", "oom", 0),
        (
            json!({ "status": "failed", "error": { "code": "invalid_input", "message": "no prompt" } }),
            "failed",
            "invalid_input",
            "no prompt",
            10,
        ),
        (json!({ "status": "canceled" }), "failed", "target_error", "canceled by who did it", 0),
        (json!({ "status": "aborted" }), "failed", "target_error", "aborted by who did it", 0),
        // As when a target answers it: no other call would say it otherwise.
        (
            json!({ "status": "succeeded", "output": "x".repeat(65_535) }),
            "failed",
            "invalid_output",
            "the output has 65537 bytes, at most 65536 are kept",
            0,
        ),
        (json!({ "status": "failed", "error": again }), "queued", "target_error", "no GPU", 0),
    ];
    for (said, becomes, code, message, captured) in &cases {
        let id = bench.script(account, json!([wait])).await;
        tick(&bench).await;
        let answer = call(&bench, &path(&id, 1), said).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (200, &json!(becomes)),
            "{said}: {}",
            answer.body
        );
        let job = bench.job(account, &id).await;
        assert_eq!(
            (&job["error"]["code"], &job["error"]["message"]),
            (&json!(code), &json!(message)),
            "{said}"
        );
        assert_eq!(job["credits"]["captured"], *captured, "{said}");
        if *becomes == "queued" {
            // It is tried again after its backoff, and that was the last attempt.
            assert_refused(&call(&bench, &path(&id, 1), said).await, 409, "callback_expired");
            bench.wait(2).await;
            assert_eq!(tick(&bench).await["waiting"], 1);
            assert_refused(&call(&bench, &path(&id, 1), said).await, 409, "callback_expired");
            assert_eq!(call(&bench, &path(&id, 2), said).await.body["status"], "failed");
            let runs = bench.get(account, &format!("/api/jobs/{id}/runs")).await.body;
            let ended: Vec<_> = runs["data"].as_array().unwrap().iter().map(|run| &run["ended"]).collect();
            assert_eq!(ended, ["retry", "failed"]);
        }
    }
    assert_eq!(bench.balance(account).await, (70, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_called_back_in_time_and_the_job_fails_and_is_released() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "", 10).await;
    bench.wait(1_801).await;
    let said = json!({ "status": "succeeded" });
    assert_refused(&call(&bench, &path(&id, 1), &said).await, 409, "callback_expired");
    assert_eq!(tick(&bench).await["lapsed"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("not_called_back")));
    assert_refused(&call(&bench, &path(&id, 1), &said).await, 409, "callback_used");
    assert_eq!((bench.balance(account).await, &job["credits"]), ((10, 0), &credits(0, 0, 10)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_jobs_life() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "life_seconds = 600", 10).await;
    let job = bench.job(account, &id).await;
    assert_eq!(job["waiting_until"], job["expires_at"]);
    bench.wait(601).await;
    tick(&bench).await;
    assert_eq!(
        (status(&bench, account, &id).await.as_str(), bench.balance(account).await),
        ("failed", (10, 0))
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_shows_how_far_it_is() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "", 10).await;
    let said = json!({ "status": "processing", "progress": { "percent": 40, "message": "ä".repeat(300) } });
    assert_eq!(call(&bench, &path(&id, 1), &said).await.body["status"], "running");
    let progress = bench.job(account, &id).await["progress"].clone();
    assert_eq!((&progress["percent"], &progress["message"]), (&json!(40), &json!("ä".repeat(200))));
    assert_eq!(call(&bench, &path(&id, 1), &json!({ "status": "starting" })).await.status, 200);
    assert_eq!(bench.job(account, &id).await["progress"]["percent"], 40);
    assert_eq!(call(&bench, &path(&id, 1), &json!({ "status": "succeeded" })).await.status, 200);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_call_back_says_what_it_used() {
    let bench = Bench::new().await;
    bench.scripted_kind("metered = true").await;
    let account = bench.account(40).await;
    for (said, captured) in [(json!(3), 3), (json!(0), 0), (json!(11), 10), (NULL, 10)] {
        let id = bench.script(account, json!([{ "do": "wait", "seconds": 1_800 }])).await;
        tick(&bench).await;
        let body = json!({ "status": "succeeded", "credits_used": said });
        assert_eq!(call(&bench, &path(&id, 1), &body).await.status, 200);
        assert_eq!(bench.job(account, &id).await["credits"], credits(0, captured, 10 - captured));
    }
    assert_eq!(bench.balance(account).await, (17, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_canceled_at_once_and_its_target_told() {
    let bench = Bench::new().await;
    let target = ScriptedServer::start(|request: Request| match request.path.as_str() {
        "/stop" => Response::json(200, NULL),
        _ => Response::json(202, NULL),
    })
    .await
    .unwrap();
    for (kind, on_cancel, captured) in [("free", "release", 0), ("paid", "capture", 10)] {
        bench.http_kind(&format!("{kind}.picture"), 10, &target.url("/")).await;
        let stop = target.url("/stop");
        bench
            .sql(&format!(
                "UPDATE punchcard.kinds SET on_cancel = '{on_cancel}', cancel_url = '{stop}' WHERE name = '{kind}.picture'"
            ))
            .await;
        let account = bench.account(10).await;
        let body = json!({ "kind": format!("{kind}.picture"), "input": { "n": 1.50 } });
        let id = bench.post(account, body, None).await.body["id"].as_str().unwrap().to_owned();
        bench.poller().invoke(&json!({})).await.unwrap();
        let answer = bench.act(account, &format!("/api/jobs/{id}/cancel")).await;
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!("canceled")));
        assert_eq!(answer.body["credits"], credits(0, captured, 10 - captured));
        assert_refused(
            &call(&bench, &path(&id, 1), &json!({ "status": "succeeded" })).await,
            409,
            "callback_used",
        );
        assert_eq!(bench.balance(account).await, (10 - captured, 0));

        bench.poller().invoke(&json!({})).await.unwrap();
        let told = target.requests().pop().unwrap();
        assert_eq!(told.path, "/stop");
        let secret = shared::signing::kind_secret(SIGNING_SECRET, &format!("{kind}.picture"), 1);
        standardwebhooks::Webhook::new(&secret).unwrap().verify(&told.body, &told.headers).expect("signed");
        let said: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!((&said["id"], &said["input"]), (&json!(id), &json!({ "n": 1.50 })));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_for_a_rust_kind_is_told_to_stop_when_it_is_canceled_or_late() {
    let bench = Bench::new().await;
    let stop = ScriptedServer::start(|_| Response::json(200, NULL)).await.unwrap();
    let (account, canceled) = waiting(&bench, &format!("cancel_url = '{}'", stop.url("/stop")), 20).await;
    let late = bench.script(account, json!([{ "do": "wait", "seconds": 1_800 }])).await;
    tick(&bench).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{canceled}/cancel")).await.status, 200);
    bench.wait(1_801).await;
    assert_eq!(tick(&bench).await["webhooks"]["delivered"], 2);
    let told: Vec<String> = stop
        .requests()
        .iter()
        .map(|request| request.headers["webhook-id"].to_str().unwrap().to_owned())
        .collect();
    for id in [&canceled, &late] {
        assert!(told.contains(&format!("{id}.cancel")), "{told:?}");
    }
    assert_eq!((told.len(), bench.balance(account).await), (2, (20, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_refuses_to_be_canceled_does_so_while_it_waits() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "on_cancel = 'refuse'", 10).await;
    let before = books(&bench).await;
    assert_refused(&bench.act(account, &format!("/api/jobs/{id}/cancel")).await, 409, "not_cancelable");
    assert_eq!(books(&bench).await, before);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_faster_than_the_worker_is_heard() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "wait", "seconds": 60 }])).await;
    // It is leased, and its worker has not yet said that it waits.
    bench.rows("SELECT job_id FROM punchcard.claim(1, '{test.scripted}', false, 60, 60)").await;
    assert_eq!(call(&bench, &path(&id, 1), &json!({ "status": "succeeded" })).await.status, 200);
    let settled = format!(
        "SELECT job_id FROM punchcard.settle('{{{id}}}', '{{1}}', '{{wait}}', '{{60}}', '{{NULL}}', '{{NULL}}')"
    );
    assert!(bench.rows(&settled).await.is_empty(), "too late to wait");
    assert_eq!(
        (status(&bench, account, &id).await.as_str(), bench.balance(account).await),
        ("succeeded", (0, 0))
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_public_url_a_202_is_an_error() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let target = ScriptedServer::start(|_| Response::json(202, NULL)).await.unwrap();
    bench.http_kind("picture", 10, &target.url("/")).await;
    let id =
        bench.post(account, json!({ "kind": "picture" }), None).await.body["id"].as_str().unwrap().to_owned();
    bench.poller_with(&[("PUBLIC_URL", "")]).invoke(&json!({})).await.unwrap();
    let said: Value = serde_json::from_slice(&target.requests()[0].body).unwrap();
    assert!(said.get("callback_url").is_none());
    assert_schema("TargetRequest", &said, &["callback_url"]);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("target_error")));
    assert!(job["error"]["message"].as_str().unwrap().contains("PUBLIC_URL"), "{job}");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_was_not_sealed_changes_nothing() {
    let bench = Bench::new().await;
    let (account, id) = waiting(&bench, "", 10).await;
    let before = books(&bench).await;
    let good = path(&id, 1);
    let forged =
        format!("/api/callbacks/{}", callback_token("another master secret", id.parse().unwrap(), 1));
    let done = json!({ "status": "succeeded" });
    for bad in [
        forged.as_str(),
        "/api/callbacks/x",
        "/api/callbacks/",
        &good[..good.len() - 2],
        &format!("{good}AA"),
    ] {
        assert_refused(&call(&bench, bad, &done).await, 404, "not_found");
    }
    assert_refused(&call(&bench, &path(&id, 2), &done).await, 409, "callback_expired");
    assert_refused(&call(&bench, &path(&Uuid::new_v4().to_string(), 1), &done).await, 404, "not_found");
    let deep = format!("{{\"status\":\"succeeded\",\"output\":{}{}}}", "[".repeat(101), "]".repeat(101));
    let bodies = [
        (json!({}), 400, "invalid_field"),
        (json!({ "status": 1 }), 400, "invalid_field"),
        (json!({ "status": "succeeded", "credits_used": "1" }), 400, "invalid_field"),
        (json!({ "status": "done" }), 422, "invalid_status"),
        (json!({ "status": "succeeded", "credits_used": -1 }), 422, "invalid_credits_used"),
        (json!({ "status": "succeeded", "output": "\0" }), 422, "nul_character"),
        (json!({ "status": "running", "progress": { "percent": 101 } }), 422, "invalid_progress"),
        (json!({ "status": "running", "progress": 1 }), 400, "invalid_field"),
        (json!({ "status": "failed", "error": 1 }), 400, "invalid_field"),
        (json!([]), 400, "not_an_object"),
        (json!({ "status": "succeeded", "logs": "x".repeat(1_048_576) }), 413, "too_large"),
    ];
    for (body, status, word) in bodies {
        assert_refused(&call(&bench, &good, &body).await, status, word);
    }
    let headers = [("content-type", "application/json")];
    let answer = bench.request(event("POST", &good, &headers, Some(&deep))).await;
    assert_eq!(code(&answer), (400, "too_deep"));
    let answer = bench.request(event("POST", &good, &[], Some("{}"))).await;
    assert_eq!(code(&answer), (415, "unsupported_media_type"));
    assert_eq!(bench.request(event("GET", &good, &[], None)).await.status, 405);
    assert_eq!(books(&bench).await, before);
    // The largest output passes, and so does what a provider sends along.
    let whole =
        json!({ "status": "succeeded", "output": "x".repeat(65_534), "metrics": { "predict_time": 1.2 } });
    assert_eq!(call(&bench, &good, &whole).await.status, 200);
    assert_eq!(
        (status(&bench, account, &id).await.as_str(), bench.balance(account).await),
        ("succeeded", (0, 0))
    );
    bench.assert_audit_is_clean().await;
}
