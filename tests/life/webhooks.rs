//! Webhooks as they are said: to whom, of what, signed, each in its turn.

use std::time::Duration;

use local::scripted::{Request, Response, ScriptedServer};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use uuid::Uuid;

use super::{
    help::{serve, tick},
    until_running,
};
use crate::support::{Answer, Bench, bearer, documented::assert_schema, event};

pub async fn ask(bench: &Bench, account: Uuid, method: &str, path: &str, body: Option<Value>) -> Answer {
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    bench.request(event(method, path, &headers, body.map(|body| body.to_string()).as_deref())).await
}

/// Tells the account at this URL, of these events or, without, of each end.
pub async fn tell(bench: &Bench, account: Uuid, url: &str, events: Option<&[&str]>) {
    let body = match events {
        Some(events) => json!({ "url": url, "events": events }),
        None => json!({ "url": url }),
    };
    let answer = ask(bench, account, "PUT", "/api/webhook", Some(body)).await;
    assert_eq!((answer.status, &answer.body["url"]), (200, &json!(url)), "{}", answer.body);
}

/// The account's secret, as the API shows it.
pub async fn secret(bench: &Bench, account: Uuid) -> String {
    let shown = ask(bench, account, "GET", "/api/webhook", None).await.body;
    shown["secret"].as_str().expect("a secret").to_owned()
}

pub async fn receiver(answer: impl Fn(Request) -> Response + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::start(answer).await.expect("a port")
}

pub async fn listener() -> ScriptedServer {
    receiver(|_| Response::bytes(204, "")).await
}

/// What was heard, in its order, each message signed by this secret.
fn verified(server: &ScriptedServer, secret: &str) -> Vec<Value> {
    let webhook = Webhook::new(secret).expect("a secret");
    let read = |request: Request| {
        webhook.verify(&request.body, &request.headers).expect("a valid signature");
        let message: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_schema("WebhookMessage", &message, &[]);
        assert_schema("WebhookJob", &message["data"], &[]);
        message
    };
    server.requests().into_iter().map(read).collect()
}

/// The job and the event of each message, sorted.
fn told(messages: &[Value]) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let mut told: Vec<_> =
        messages.iter().map(|said| (word(&said["data"]["id"]), word(&said["type"]))).collect();
    told.sort();
    told
}

/// What should have been told, sorted.
fn of(told: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut told: Vec<_> = told.iter().map(|(id, event)| ((*id).to_owned(), (*event).to_owned())).collect();
    told.sort();
    told
}

/// Buys a scripted job with more members; answers its id.
pub async fn buy(bench: &Bench, account: Uuid, steps: Value, more: Value) -> String {
    let mut job = json!({ "kind": "test.scripted", "input": { "script": steps } });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = bench.post(account, job, None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().expect("an id").to_owned()
}

fn webhook(url: &str, events: &[&str]) -> Value {
    json!({ "webhook": { "url": url, "events": events } })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_is_told_to_who_asked_and_to_nobody_else() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(40).await, bench.account(10).await);
    tell(&bench, account, &server.url("/hook?team=7"), None).await;
    let fine = bench.script(account, json!([{ "do": "done" }])).await;
    let bad = bench.script(account, json!([{ "do": "err" }, { "do": "final" }])).await;
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    let silent = bench.script(other, json!([{ "do": "done" }])).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{queued}/cancel")).await.status, 200);
    let summary = tick(&bench).await;
    assert_eq!(summary["webhooks"], json!({ "delivered": 2, "retried": 0, "given_up": 0 }), "{summary}");
    bench.wait(60).await;
    let running = bench.script(account, json!([{ "do": "stop_then_err" }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &running).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{running}/cancel")).await.status, 202);
    run.wait().await.unwrap();

    let messages = verified(&server, &secret(&bench, account).await);
    let ends = [
        (fine.as_str(), "job.succeeded"),
        (&bad, "job.failed"),
        (&queued, "job.canceled"),
        (&running, "job.canceled"),
    ];
    assert_eq!(told(&messages), of(&ends));
    for request in server.requests() {
        assert_eq!(request.path, "/hook?team=7");
        assert!(request.headers.get("authorization").is_none());
        let strange = Webhook::new(&secret(&bench, other).await).unwrap();
        assert!(strange.verify(&request.body, &request.headers).is_err(), "by its account's secret alone");
    }
    assert_eq!(bench.balance(account).await, (30, 0));
    assert_eq!(bench.balance(other).await, (0, 0));
    let deliveries = bench.get(other, &format!("/api/jobs/{silent}/deliveries")).await.body;
    assert_eq!(deliveries["data"], json!([]));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_the_job_without_its_input_and_without_an_output_that_is_too_large() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    tell(&bench, account, &server.url("/"), None).await;
    let notes = json!({ "tags": ["t"], "metadata": { "order": "7" } });
    // With its quotes the first is of 10,000 bytes, the second of one more.
    let fits = buy(&bench, account, json!([{ "do": "large", "bytes": 9_998 }]), notes).await;
    let large = buy(&bench, account, json!([{ "do": "large", "bytes": 9_999 }]), json!({})).await;
    let bad = buy(&bench, account, json!([{ "do": "reject" }]), json!({})).await;
    tick(&bench).await;

    let messages = verified(&server, &secret(&bench, account).await);
    let message =
        |id: &str| messages.iter().find(|message| message["data"]["id"] == id).expect("told").clone();
    let (said, job) = (message(&fits), bench.job(account, &fits).await);
    let mut members: Vec<_> = said.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["data", "timestamp", "type"], "as Standard Webhooks has it");
    for member in [
        "id",
        "kind",
        "account_id",
        "status",
        "attempt",
        "output",
        "error",
        "created_at",
        "started_at",
        "finished_at",
        "metadata",
        "tags",
        "credits",
    ] {
        assert_eq!(said["data"][member], job[member], "{member}");
    }
    assert_eq!((&said["data"]["output_omitted"], &said["data"]["input"]), (&json!(false), &Value::Null));
    assert_eq!(said["data"]["credits"], super::credits(0, 10, 0));
    let said = message(&large);
    assert_eq!((&said["data"]["output"], &said["data"]["output_omitted"]), (&Value::Null, &json!(true)));
    assert!(bench.job(account, &large).await["output"].is_string());
    let said = message(&bad);
    assert_eq!(
        (&said["type"], &said["data"]["error"]["code"]),
        (&json!("job.failed"), &json!("invalid_input"))
    );
    assert_eq!(said["data"]["output_omitted"], false);
    for request in server.requests() {
        assert!(!String::from_utf8_lossy(&request.body).contains("\"script\""), "its input is nowhere in it");
        assert!(request.body.len() < 20_000);
        assert_eq!(request.headers["content-type"], "application/json");
    }
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_own_webhook_goes_before_the_accounts_and_hears_what_it_asked_for() {
    let (bench, own, common) = (Bench::new().await, listener().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(50).await;
    let again = json!([{ "do": "err" }, { "do": "done" }]);
    let all = buy(&bench, account, again, webhook(&own.url("/"), &["job.running", "job.succeeded"])).await;
    let deaf = buy(&bench, account, json!([{ "do": "done" }]), webhook(&own.url("/"), &["job.failed"])).await;
    let input = json!({ "script": [{ "do": "final" }] });
    let own_url = json!({ "url": own.url("/batch") });
    let jobs = json!([{ "kind": "test.scripted", "input": input, "webhook": own_url },
                      { "kind": "test.scripted", "input": input }]);
    let batch = ask(&bench, account, "POST", "/api/jobs:batch", Some(json!({ "jobs": jobs }))).await;
    assert_eq!(batch.status, 202, "{}", batch.body);
    let [first, second] = [0, 1].map(|n| batch.body["jobs"][n]["id"].as_str().unwrap().to_owned());
    assert_eq!(bench.job(account, &first).await["webhook"]["url"], own_url["url"]);
    assert_eq!(bench.job(account, &second).await["webhook"], Value::Null);
    let events = json!(["job.succeeded", "job.failed", "job.canceled"]);
    assert_eq!(bench.job(account, &first).await["webhook"]["events"], events, "unless it says otherwise");
    // Set after they were bought: it counts when something happens.
    tell(&bench, account, &common.url("/"), Some(&["job.failed"])).await;
    let quiet = buy(&bench, account, json!([{ "do": "done" }]), json!({})).await;
    tick(&bench).await;
    bench.wait(60).await;
    tick(&bench).await;

    let secret = secret(&bench, account).await;
    let to_own = [
        (all.as_str(), "job.running"),
        (&all, "job.running"),
        (&all, "job.succeeded"),
        (&first, "job.failed"),
    ];
    assert_eq!(told(&verified(&own, &secret)), of(&to_own), "each run of it; and {deaf} has nothing to say");
    assert_eq!(told(&verified(&common, &secret)), of(&[(&second, "job.failed")]), "{quiet} did not fail");
    assert_eq!(bench.balance(account).await, (20, 0), "two failed, and are released");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_redrive_are_told_where_the_first_try_was() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let service = bench.service_token("operator", &["operate"]).await;
    let own = webhook(&server.url("/"), &["job.failed"]);
    let by_hand = buy(&bench, account, json!([{ "do": "final" }]), own.clone()).await;
    tick(&bench).await;
    let retried = bench.act(account, &format!("/api/jobs/{by_hand}/retry")).await;
    assert_eq!((retried.status, &retried.body["webhook"]), (202, &own["webhook"]));
    tick(&bench).await;
    let redriven = serve(&bench, &service, "/api/jobs:retry", Some(json!({ "kind": "test.scripted" }))).await;
    assert_eq!((redriven.status, &redriven.body["matched"]), (200, &json!(1)), "{}", redriven.body);
    tick(&bench).await;
    let third = redriven.body["data"][0]["retried_as"].as_str().unwrap();
    let second = retried.body["id"].as_str().unwrap();
    let messages = verified(&server, &secret(&bench, account).await);
    let failed = [by_hand.as_str(), second, third].map(|id| (id, "job.failed"));
    assert_eq!(told(&messages), of(&failed));
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_holds_up_nobody_else_and_a_worker_without_work_sends_what_is_due() {
    let (bench, quick) = (Bench::new().await, listener().await);
    let slow = receiver(|_| Response::bytes(200, "").delay(Duration::from_secs(10))).await;
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    let done = json!([{ "do": "done" }]);
    buy(&bench, account, done.clone(), webhook(&slow.url("/"), &["job.canceled"])).await;
    buy(&bench, account, done, webhook(&quick.url("/"), &["job.canceled"])).await;
    let jobs = bench.rows("SELECT job_id::text FROM punchcard.queue ORDER BY job_id").await;
    for job in jobs {
        let path = format!("/api/jobs/{}/cancel", job.get::<_, String>(0));
        assert_eq!(bench.act(account, &path).await.status, 200);
    }
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    let heard = "SELECT d.url FROM punchcard.deliveries d WHERE d.delivered_at IS NOT NULL";
    let first = loop {
        let heard = bench.rows(heard).await;
        if !heard.is_empty() {
            break heard.iter().map(|row| row.get(0)).collect::<Vec<String>>();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(first, [quick.url("/")], "it has heard, and that is recorded, while the slow one has not");
    assert_eq!((slow.requests().len(), quick.requests().len()), (1, 1));
    let summary = run.wait().await.unwrap();
    assert_eq!(summary["webhooks"]["delivered"], 2, "{summary}");
    assert_eq!(summary["claimed"], 0, "nothing was to be run");
    assert_eq!(bench.balance(account).await, (30, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_wake_ups_sends_what_it_settles() {
    let (bench, server) = (Bench::new().await, listener().await);
    let account = bench.account(1).await;
    tell(&bench, account, &server.url("/"), None).await;
    bench.sql("UPDATE punchcard.kinds SET dispatch = 'sqs'").await;
    bench.enqueue(account, "qr.svg", 1).await;
    let id: Uuid = bench.rows("SELECT job_id FROM punchcard.queue").await[0].get(0);
    let body = json!({ "job_id": id }).to_string();
    let worker = crate::support::sqs::Sqs::worker(&bench, &[]);
    let batch = json!({ "Records": [{ "messageId": "a", "body": body }] });
    assert_eq!(worker.invoke(&batch).await.unwrap(), json!({ "batchItemFailures": [] }));
    let messages = verified(&server, &secret(&bench, account).await);
    assert_eq!(told(&messages), of(&[(&id.to_string(), "job.succeeded")]));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_is_told_of_or_too_often_is_noticed() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(40).await;
    let settle = "SELECT pg_get_functiondef('punchcard.settle'::regproc)";
    let sound: String = bench.rows(settle).await[0].get(0);
    let findings = "SELECT count(*) FROM punchcard.audit WHERE invariant = 'I6'";
    let asked = "e.webhook -> 'events' ? ('job.' || e.status::text)";
    // Nobody is told; whoever did not ask is; twice; of another end.
    for (right, wrong) in [
        (asked, "false"),
        (asked, "true"),
        ("ON w.account_id = e.account_id", "ON w.account_id = e.account_id CROSS JOIN generate_series(1, 2)"),
        ("('job.' || e.status::text)::punchcard.event", "('job.' || 'canceled')::punchcard.event"),
    ] {
        assert!(sound.contains(right), "{right} is not there to be spoiled");
        bench.sql(&sound.replace(right, wrong)).await;
        let events: &[&str] = if wrong == "true" { &["job.failed"] } else { &["job.succeeded"] };
        buy(&bench, account, json!([{ "do": "done" }]), webhook(&server.url("/"), events)).await;
        tick(&bench).await;
        assert!(bench.count(findings).await > 0, "{wrong}");
        bench.sql("DELETE FROM punchcard.outbox; DELETE FROM punchcard.deliveries").await;
        bench
            .sql(
                "INSERT INTO punchcard.outbox (id, account_id, job_id, event, next_at)
             SELECT punchcard.uuid_v7(), j.account_id, j.id, 'job.succeeded', 'infinity' FROM punchcard.jobs j
             WHERE j.webhook -> 'events' ? 'job.succeeded'",
            )
            .await;
        bench.assert_audit_is_clean().await;
    }
    bench.sql(&sound).await;
    assert_eq!(bench.balance(account).await, (0, 0));
}
