//! Canceling: queued and running jobs, what it costs, and how a handler and a target hear of it.

use std::time::Duration;

use futures_util::future::join_all;
use local::{
    lambda::{Function, Invocation},
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use uuid::Uuid;

use super::{assert_refused, credits, until_running};
use crate::support::{Answer, Bench, SIGNING_SECRET, event};

async fn cancel(bench: &Bench, account: Uuid, id: &str) -> Answer {
    bench.act(account, &format!("/api/jobs/{id}/cancel")).await
}

/// A scripted job that runs.
async fn running(bench: &Bench, worker: &Function, account: Uuid, step: Value) -> (String, Invocation) {
    let id = bench.script(account, json!([step])).await;
    let tick = worker.start_invoke(&json!({}));
    until_running(bench, account, &id).await;
    (id, tick)
}

/// Canceled while queued: at once, and for nothing.
async fn assert_canceled_at_once(bench: &Bench, account: Uuid, id: &str) {
    let before = bench.balance(account).await;
    let answer = cancel(bench, account, id).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("canceled")), "{}", answer.body);
    assert_eq!((&answer.body["credits"], &answer.body["output"]), (&credits(0, 0, 10), &Value::Null));
    assert!(answer.body["finished_at"].is_string());
    assert_eq!(bench.job(account, id).await, answer.body);
    assert_eq!(bench.balance(account).await, (before.0 + 10, before.1 - 10));
}

/// Canceled while running: asked to stop, the price still held.
async fn assert_asked_to_stop(bench: &Bench, account: Uuid, id: &str) -> Value {
    let before = bench.balance(account).await;
    let answer = cancel(bench, account, id).await;
    assert_eq!((answer.status, &answer.body["status"]), (202, &json!("running")), "{}", answer.body);
    assert!(answer.headers["retry-after"].is_string());
    assert!(answer.body["cancel_requested_at"].is_string());
    assert_eq!((&answer.body["credits"], bench.balance(account).await), (&credits(10, 0, 0), before));
    answer.body["cancel_requested_at"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_is_canceled_and_released_at_once() {
    let bench = Bench::new().await;
    let account = bench.account(40).await;
    bench.scripted_kind("on_cancel = 'capture', backoff_seconds = 100").await;
    let worker = bench.scripted_worker();
    let on_cancel = |costs: &str| {
        format!("UPDATE punchcard.kinds SET on_cancel = '{costs}' WHERE name = 'test.scripted'")
    };
    let done = json!({ "script": [{ "do": "done" }] });
    let due = bench.script(account, done["script"].clone()).await;
    let delayed = json!({ "kind": "test.scripted", "input": done, "run_at": "2099-01-01T00:00:00Z" });
    assert_refused(&bench.post(account, delayed, None).await, 422, "invalid_run_at");
    let tomorrow = "SELECT to_char(now() + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let tomorrow: String = bench.rows(tomorrow).await[0].get(0);
    let delayed = json!({ "kind": "test.scripted", "input": done, "run_at": tomorrow });
    let delayed = bench.post(account, delayed, None).await.body["id"].as_str().unwrap().to_owned();
    assert_canceled_at_once(&bench, account, &due).await;
    assert_canceled_at_once(&bench, account, &delayed).await;
    assert_eq!(worker.invoke(&json!({})).await.unwrap()["claimed"], 0);

    // One that waits for its next attempt is canceled at once, too; what that costs is tested in
    // `between_runs.rs`.
    bench.sql(&on_cancel("release")).await;
    let waiting = bench.script(account, json!([{ "do": "err" }, { "do": "done" }])).await;
    worker.invoke(&json!({})).await.unwrap();
    assert_canceled_at_once(&bench, account, &waiting).await;
    let job = bench.job(account, &waiting).await;
    assert_eq!((&job["attempt"], &job["error"]["code"]), (&json!(1), &json!("handler_error")), "as it stood");
    bench.wait(200).await;
    assert_eq!(worker.invoke(&json!({})).await.unwrap()["claimed"], 0);
    assert_eq!(bench.balance(account).await, (40, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_final_unknown_or_anothers_is_refused_and_stays_as_it_is() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("").await;
    let done = bench.script(account, json!([{ "do": "done" }])).await;
    let failed = bench.script(account, json!([{ "do": "final" }])).await;
    bench.scripted_worker().invoke(&json!({})).await.unwrap();
    let canceled = bench.script(account, json!([{ "do": "done" }])).await;
    assert_canceled_at_once(&bench, account, &canceled).await;
    for id in [&done, &failed, &canceled] {
        let before = bench.job(account, id).await;
        assert_refused(&cancel(&bench, account, id).await, 409, "not_cancelable");
        assert_eq!(bench.job(account, id).await, before);
    }
    let stranger = Uuid::new_v4();
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    for id in [queued.as_str(), &done, &Uuid::new_v4().to_string(), "7", "%00"] {
        assert_refused(&cancel(&bench, stranger, id).await, 404, "not_found");
    }
    assert_refused(
        &bench.get(account, &format!("/api/jobs/{queued}/cancel")).await,
        405,
        "method_not_allowed",
    );
    let nobody = event("POST", &format!("/api/jobs/{queued}/cancel"), &[], None);
    assert_refused(&bench.request(nobody).await, 401, "unauthorized");
    assert_eq!(bench.job(account, &queued).await["status"], "queued");
    assert_eq!(bench.balance(account).await, (10, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_needs_the_scope_operate() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("").await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let mut bearers = Vec::new();
    for scope in ["enqueue", "grant", "operate"] {
        bearers.push((scope, format!("Bearer {}", bench.service_token(scope, &[scope]).await)));
    }
    let mut answers = Vec::new();
    for (scope, bearer) in &bearers {
        let headers = [("authorization", bearer.as_str())];
        let request = |id: &str| event("POST", &format!("/api/jobs/{id}/cancel"), &headers, None);
        answers.push(bench.request(request(&id)).await);
        if *scope == "operate" {
            assert_refused(&bench.request(request(&Uuid::new_v4().to_string())).await, 404, "not_found");
        }
    }
    assert_refused(&answers[0], 403, "forbidden");
    assert_refused(&answers[1], 403, "forbidden");
    assert_eq!((answers[2].status, &answers[2].body["status"]), (200, &json!("canceled")));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_told_and_asking_again_changes_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("").await;
    let worker = bench.scripted_worker();
    let (id, tick) = running(&bench, &worker, account, json!({ "do": "stop_then_err" })).await;
    let asked = assert_asked_to_stop(&bench, account, &id).await;
    assert_eq!(assert_asked_to_stop(&bench, account, &id).await, asked);
    let summary = tick.wait().await.unwrap();
    assert_eq!((&summary["canceled"], &summary["retried"]), (&json!(1), &json!(0)), "not tried again");
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["status"], &job["attempt"], &job["output"]),
        (&json!("canceled"), &json!(1), &Value::Null)
    );
    assert_eq!((&job["credits"], bench.balance(account).await), (&credits(0, 0, 10), (20, 0)));
    assert_refused(&cancel(&bench, account, &id).await, 409, "not_cancelable");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_succeeds_or_fails_for_good_all_the_same_has() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("on_cancel = 'capture'").await;
    bench.sql("UPDATE punchcard.kinds SET metered = true WHERE name = 'test.scripted'").await;
    let worker = bench.scripted_worker();
    for (step, status, money) in [
        (json!({ "do": "stop_then_done" }), "succeeded", credits(0, 10, 0)),
        (json!({ "do": "stop_then_done", "used": 4 }), "succeeded", credits(0, 4, 6)),
        (json!({ "do": "stop_then_final" }), "failed", credits(0, 0, 10)),
    ] {
        let (id, tick) = running(&bench, &worker, account, step).await;
        assert_asked_to_stop(&bench, account, &id).await;
        assert_eq!(tick.wait().await.unwrap()[status], 1);
        let job = bench.job(account, &id).await;
        assert_eq!((&job["status"], &job["credits"]), (&json!(status), &money));
        assert_eq!(job["output"].is_object(), status == "succeeded");
    }
    assert_eq!(bench.balance(account).await, (16, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_listen_is_dropped() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("").await;
    let worker = bench.scripted_worker();
    let (id, tick) = running(&bench, &worker, account, json!({ "do": "done", "seconds": 28 })).await;
    assert_asked_to_stop(&bench, account, &id).await;
    assert_eq!(tick.wait().await.unwrap()["canceled"], 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["crashes"]), (&json!("canceled"), &json!(0)));
    assert_eq!((&job["credits"], bench.balance(account).await), (&credits(0, 0, 10), (20, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_hung_up_on_and_told_signed() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    let target = ScriptedServer::start(|request| match request.path.as_str() {
        "/work" => Response::json(200, json!({})).delay(Duration::from_secs(25)),
        _ => Response::json(500, json!("nothing depends on it")),
    })
    .await
    .unwrap();
    bench.http_kind("slow", 10, &target.url("/work")).await;
    bench
        .sql(&format!(
            "UPDATE punchcard.kinds SET timeout_seconds = 28, cancel_url = '{}' WHERE name = 'slow'",
            target.url("/stop")
        ))
        .await;
    let job = bench.post(account, json!({ "kind": "slow", "input": { "x": 7 } }), None).await;
    let id = job.body["id"].as_str().unwrap();
    let poller = bench.poller();
    let tick = poller.start_invoke(&json!({}));
    until_running(&bench, account, id).await;
    assert_asked_to_stop(&bench, account, id).await;
    assert_eq!(tick.wait().await.unwrap()["canceled"], 1);
    let requests = target.requests();
    assert_eq!(requests.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["/work", "/stop"]);
    let secret = shared::signing::kind_secret(SIGNING_SECRET, "slow", 1);
    Webhook::new(&secret)
        .unwrap()
        .verify(&requests[1].body, &requests[1].headers)
        .expect("a valid signature");
    assert_eq!(
        requests[1].headers["webhook-id"].to_str().unwrap(),
        format!("{id}.cancel"),
        "another message"
    );
    assert_eq!(requests[1].body, requests[0].body, "the same POST");
    let job = bench.job(account, id).await;
    assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &credits(0, 0, 10)));
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canceling_late_may_cost_the_price() {
    let bench = Bench::new().await;
    let account = bench.account(30).await;
    bench.scripted_kind("on_cancel = 'capture'").await;
    let worker = bench.scripted_worker();
    for terms in ["metered = false", "metered = true"] {
        bench.sql(&format!("UPDATE punchcard.kinds SET {terms} WHERE name = 'test.scripted'")).await;
        let (id, tick) = running(&bench, &worker, account, json!({ "do": "stop_then_err" })).await;
        assert_asked_to_stop(&bench, account, &id).await;
        assert_eq!(tick.wait().await.unwrap()["canceled"], 1);
        let job = bench.job(account, &id).await;
        assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &credits(0, 10, 0)), "{terms}");
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_may_refuse_to_be_canceled_once_it_runs() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("on_cancel = 'refuse'").await;
    let worker = bench.scripted_worker();
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    assert_canceled_at_once(&bench, account, &queued).await;
    let (id, tick) = running(&bench, &worker, account, json!({ "do": "done", "seconds": 6 })).await;
    assert_refused(&cancel(&bench, account, &id).await, 409, "not_cancelable");
    let job = bench.job(account, &id).await;
    assert_eq!((&job["cancel_requested_at"], &job["credits"]), (&Value::Null, &credits(10, 0, 0)));
    assert_eq!(tick.wait().await.unwrap()["succeeded"], 1);
    assert_eq!(bench.job(account, &id).await["credits"], credits(0, 10, 0));
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_are_those_of_the_moment_of_purchase() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    bench.scripted_kind("on_cancel = 'release'").await;
    let worker = bench.scripted_worker();
    for (bought, now, money) in
        [("release", "refuse", credits(0, 0, 10)), ("capture", "release", credits(0, 10, 0))]
    {
        let set =
            |terms| format!("UPDATE punchcard.kinds SET on_cancel = '{terms}' WHERE name = 'test.scripted'");
        bench.sql(&set(bought)).await;
        let (id, tick) = running(&bench, &worker, account, json!({ "do": "stop_then_err" })).await;
        bench.sql(&set(now)).await;
        assert_asked_to_stop(&bench, account, &id).await;
        assert_eq!(tick.wait().await.unwrap()["canceled"], 1);
        assert_eq!(bench.job(account, &id).await["credits"], money, "{bought}, then {now}");
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_whose_worker_died_or_whose_life_ended_is_canceled() {
    let bench = Bench::new().await;
    bench.scripted_kind("life_seconds = 1000").await;
    let worker = bench.scripted_worker();
    // A lease is over in 70 s, a life in 1100.
    for (terms, seconds, money) in [
        ("release", 70, credits(0, 0, 10)),
        ("capture", 70, credits(0, 10, 0)),
        ("capture", 1_100, credits(0, 10, 0)),
    ] {
        let account = bench.account(10).await;
        bench
            .sql(&format!("UPDATE punchcard.kinds SET on_cancel = '{terms}' WHERE name = 'test.scripted'"))
            .await;
        let (id, tick) = running(&bench, &worker, account, json!({ "do": "done", "seconds": 28 })).await;
        assert_asked_to_stop(&bench, account, &id).await;
        assert!(tick.kill());
        tick.wait().await.unwrap_err();
        assert_eq!(bench.job(account, &id).await["status"], "running", "nobody knows yet");
        bench.wait(seconds).await;
        let summary = worker.invoke(&json!({})).await.unwrap();
        assert_eq!((&summary["claimed"], &summary["rescued"]), (&json!(0), &json!(0)));
        let job = bench.job(account, &id).await;
        assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &money), "{terms} {seconds}");
        assert_eq!(bench.balance(account).await, (money["released"].as_i64().unwrap(), 0));
    }
    bench.assert_audit_is_clean().await;
}

/// Its report waits for the cancel to be committed, and must not miss it: the job would stay until its lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_errs_while_it_is_being_canceled_is_canceled() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.scripted_kind("on_cancel = 'capture'").await;
    let worker = bench.scripted_worker();
    let (id, tick) = running(&bench, &worker, account, json!({ "do": "err", "seconds": 4 })).await;
    bench.sql("BEGIN").await;
    bench.sql(&format!("SELECT punchcard.cancel('{id}', '{account}')")).await;
    bench.until_waiting_for_locks(1).await;
    bench.sql("COMMIT").await;
    let summary = tick.wait().await.unwrap();
    assert_eq!((&summary["canceled"], &summary["lost"]), (&json!(1), &json!(0)));
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &credits(0, 10, 0)));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cancel_and_its_rivals_one_wins_and_the_price_moves_once() {
    let bench = Bench::new().await;
    let account = bench.account(200).await;
    bench.scripted_kind("on_cancel = 'refuse'").await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let answers = join_all((0..8).map(|_| cancel(&bench, account, &id))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    answers.iter().filter(|it| it.status != 200).for_each(|it| assert_refused(it, 409, "not_cancelable"));
    assert_eq!(bench.balance(account).await, (200, 0));

    // Against a worker: whoever has the job first.
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.script(account, json!([{ "do": "done" }])).await);
    }
    let worker = bench.scripted_worker();
    let tick = worker.start_invoke(&json!({}));
    let answers = join_all(ids.iter().map(|id| cancel(&bench, account, id))).await;
    tick.wait().await.unwrap();
    let mut captured = 0;
    for (id, answer) in ids.iter().zip(&answers) {
        let job = bench.job(account, id).await;
        match answer.status {
            200 => assert_eq!((&job["status"], &job["credits"]), (&json!("canceled"), &credits(0, 0, 10))),
            _ => {
                assert_refused(answer, 409, "not_cancelable");
                assert_eq!((&job["status"], &job["credits"]), (&json!("succeeded"), &credits(0, 10, 0)));
                captured += 10;
            }
        }
    }
    assert_eq!(bench.balance(account).await, (200 - captured, 0));
    bench.assert_audit_is_clean().await;
}
