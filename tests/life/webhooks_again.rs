//! Webhooks that are not heard: when they are sent again, and when no more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use local::{
    lambda::Function,
    scripted::{Request, Response, ScriptedServer},
};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use uuid::Uuid;

use super::{
    help::tick,
    webhooks::{ask, buy, listener, receiver, secret, tell},
};
use crate::support::{Bench, binary, environment};

/// A job that is done once it runs.
async fn done(bench: &Bench, account: Uuid, more: Value) -> String {
    buy(bench, account, json!([{ "do": "done" }]), more).await
}

/// All messages of a job, as its owner sees them.
async fn deliveries(bench: &Bench, account: Uuid, job: &str) -> Vec<Value> {
    let answer = bench.get(account, &format!("/api/jobs/{job}/deliveries")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["data"].as_array().unwrap().clone()
}

/// Whatever is to be sent again is due.
async fn all_due(bench: &Bench) {
    bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
}

/// In how many seconds the one message that waits is sent again.
async fn seconds(bench: &Bench) -> f64 {
    let left = "SELECT extract(epoch FROM next_at - now())::float8 FROM punchcard.outbox";
    bench.rows(left).await[0].get(0)
}

fn ids(server: &ScriptedServer) -> Vec<String> {
    let id = |request: Request| request.headers["webhook-id"].to_str().unwrap().to_owned();
    server.requests().into_iter().map(id).collect()
}

/// A receiver that answers with the status that it is set to, and asks to be spared for as many seconds as it is set to.
async fn moody() -> (ScriptedServer, Arc<AtomicU64>, Arc<AtomicU64>) {
    let (status, after) = (Arc::new(AtomicU64::new(500)), Arc::new(AtomicU64::new(0)));
    let (now, spare) = (Arc::clone(&status), Arc::clone(&after));
    let server = receiver(move |_| {
        let answer = Response::bytes(now.load(Ordering::SeqCst).try_into().unwrap(), "no");
        match spare.load(Ordering::SeqCst) {
            0 => answer,
            seconds => answer.header("retry-after", &seconds.to_string()),
        }
    });
    (server.await, status, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_heard_is_sent_ten_times_by_the_schedule_and_given_up() {
    let bench = Bench::new().await;
    let (server, ..) = moody().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    tell(&bench, account, &server.url("/"), None).await;
    let job = done(&bench, account, json!({})).await;
    let worker = bench.scripted_worker();
    let schedule = [5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];
    for (sending, delay) in (1..).zip(schedule) {
        let summary = worker.invoke(&json!({})).await.unwrap();
        assert_eq!(summary["webhooks"], json!({ "delivered": 0, "retried": 1, "given_up": 0 }), "{summary}");
        let left = seconds(&bench).await;
        assert!((delay - 5.0..=delay * 1.1).contains(&left), "{left} after sending {sending}");
        let shown = &deliveries(&bench, account, &job).await[0];
        assert_eq!((&shown["attempt"], &shown["delivered_at"]), (&json!(sending), &Value::Null));
        assert_eq!(shown["error"], "the receiver answered 500");
        assert!(shown["next_attempt_at"].is_string());
        if sending == 1 {
            let idle = worker.invoke(&json!({})).await.unwrap();
            assert_eq!(idle["webhooks"]["retried"], 0, "not before its time");
        }
        all_due(&bench).await;
    }
    let summary = worker.invoke(&json!({})).await.unwrap();
    assert_eq!(summary["webhooks"], json!({ "delivered": 0, "retried": 0, "given_up": 1 }), "{summary}");
    let shown = &deliveries(&bench, account, &job).await[0];
    assert_eq!((&shown["attempt"], &shown["next_attempt_at"]), (&json!(10), &Value::Null));
    let ids = ids(&server);
    assert_eq!((ids.len(), ids.iter().all(|id| *id == shown["id"])), (10, true), "the same each time");
    let stamps = server.requests().into_iter().map(|request| request.headers["webhook-timestamp"].clone());
    assert!(stamps.clone().last() >= stamps.clone().next(), "the time is that of each sending");
    let webhook = Webhook::new(&secret(&bench, account).await).unwrap();
    server.requests().iter().for_each(|it| webhook.verify(&it.body, &it.headers).expect("signed anew"));
    assert_eq!(bench.balance(account).await, (0, 0), "that nobody hears costs nobody anything");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_spared_as_long_as_it_asks_and_is_heard_once_it_has() {
    let bench = Bench::new().await;
    let (server, status, after) = moody().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    tell(&bench, account, &server.url("/"), None).await;
    let job = done(&bench, account, json!({})).await;
    status.store(503, Ordering::SeqCst);
    after.store(120, Ordering::SeqCst);
    tick(&bench).await;
    let left = seconds(&bench).await;
    assert!((110.0..=120.0).contains(&left), "{left}");
    status.store(429, Ordering::SeqCst);
    after.store(1, Ordering::SeqCst);
    all_due(&bench).await;
    tick(&bench).await;
    let left = seconds(&bench).await;
    assert!((290.0..=330.0).contains(&left), "{left}: it shortens nothing");
    status.store(200, Ordering::SeqCst);
    all_due(&bench).await;
    tick(&bench).await;
    let shown = &deliveries(&bench, account, &job).await[0];
    assert!(shown["delivered_at"].is_string() && shown["error"].is_null(), "{shown}");
    assert_eq!((&shown["attempt"], &shown["next_attempt_at"]), (&json!(3), &Value::Null));
    all_due(&bench).await;
    tick(&bench).await;
    assert_eq!(server.requests().len(), 3, "what was heard is not said again");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_told_nothing_more_until_set_again() {
    let bench = Bench::new().await;
    let (server, status, _) = moody().await;
    bench.scripted_kind("").await;
    let account = bench.account(60).await;
    tell(&bench, account, &server.url("/"), None).await;
    let pending = done(&bench, account, json!({})).await;
    tick(&bench).await;
    status.store(410, Ordering::SeqCst);
    let gone = done(&bench, account, json!({})).await;
    tick(&bench).await;
    let shown = ask(&bench, account, "GET", "/api/webhook", None).await.body;
    assert!(shown["disabled_at"].is_string() && shown["url"].is_string(), "{shown}");
    assert_eq!(deliveries(&bench, account, &gone).await[0]["next_attempt_at"], Value::Null);
    status.store(200, Ordering::SeqCst);
    let untold = done(&bench, account, json!({})).await;
    let own = done(&bench, account, json!({ "webhook": { "url": server.url("/own") } })).await;
    all_due(&bench).await;
    tick(&bench).await;
    let given_up = &deliveries(&bench, account, &pending).await[0];
    assert_eq!((&given_up["next_attempt_at"], &given_up["delivered_at"]), (&Value::Null, &Value::Null));
    assert_eq!(given_up["error"], "the webhook is gone or disabled");
    assert_eq!(deliveries(&bench, account, &untold).await, [] as [Value; 0]);
    assert!(deliveries(&bench, account, &own).await[0]["delivered_at"].is_string(), "a job's own is another");
    assert_eq!(server.requests().len(), 3);
    tell(&bench, account, &server.url("/"), None).await;
    assert_eq!(ask(&bench, account, "GET", "/api/webhook", None).await.body["disabled_at"], Value::Null);
    let told = done(&bench, account, json!({})).await;
    tick(&bench).await;
    assert!(deliveries(&bench, account, &told).await[0]["delivered_at"].is_string());

    // Of a job's own webhook, what else was to go there is dropped, and the account's goes on.
    let events = json!(["job.running", "job.succeeded"]);
    status.store(500, Ordering::SeqCst);
    let steps = json!([{ "do": "err" }, { "do": "done" }]);
    let own = json!({ "webhook": { "url": server.url("/own"), "events": events } });
    let job = buy(&bench, account, steps, own).await;
    tick(&bench).await;
    status.store(410, Ordering::SeqCst);
    bench.wait(60).await;
    tick(&bench).await;
    let all = deliveries(&bench, account, &job).await;
    assert_eq!(all.len(), 3, "{all:?}");
    for message in all {
        assert_eq!((&message["next_attempt_at"], &message["delivered_at"]), (&Value::Null, &Value::Null));
        let why = message["error"].as_str().unwrap();
        assert!(
            ["the receiver answered 410 (Gone)", "the webhook is gone or disabled"].contains(&why),
            "{why}"
        );
    }
    assert_eq!(ask(&bench, account, "GET", "/api/webhook", None).await.body["disabled_at"], Value::Null);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

/// Another of the same job's was on its way to them already.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_by_who_is_gone_was_heard() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(60).await;
    let job = done(&bench, account, json!({})).await;
    let ids = ["00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"];
    for id in ids {
        bench
            .sql(&format!(
                "INSERT INTO punchcard.outbox (id, account_id, job_id, next_at, event, url)
                 VALUES ('{id}', '{account}', '{job}', now(), 'job.running', 'https://own.example/')"
            ))
            .await;
    }
    assert_eq!(bench.count("SELECT count(id) FROM punchcard.claim_deliveries(10, 60)").await, 2);
    for (id, verdict) in ids.iter().zip(["gone", "delivered"]) {
        let recorded = format!(
            "SELECT count(*) FROM punchcard.settle_deliveries(ARRAY['{job}'::uuid], ARRAY['{id}'::uuid], '{{1}}', '{{{verdict}}}',
                 '{{0}}', '{{why}}', '{{https://own.example/}}') WHERE NOT out_of_reach"
        );
        assert_eq!(bench.count(&recorded).await, 1);
    }
    let heard = "SELECT count(*) FROM punchcard.deliveries WHERE delivered_at IS NOT NULL AND NOT gone";
    assert_eq!(bench.count(heard).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_a_big_answer_is_one() {
    let (bench, elsewhere) = (Bench::new().await, listener().await);
    let there = elsewhere.url("/");
    let server = receiver(move |request| match request.path.as_str() {
        "/moved" => Response::bytes(307, "").header("location", &there),
        _ => Response::bytes(200, "x".repeat(1_000_000)),
    });
    let server = server.await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let moved = done(&bench, account, json!({ "webhook": { "url": server.url("/moved") } })).await;
    let big = done(&bench, account, json!({ "webhook": { "url": server.url("/big") } })).await;
    tick(&bench).await;
    let shown = &deliveries(&bench, account, &moved).await[0];
    assert_eq!((&shown["error"], &shown["attempt"]), (&json!("the receiver answered 307"), &json!(1)));
    assert!(shown["next_attempt_at"].is_string());
    assert!(deliveries(&bench, account, &big).await[0]["delivered_at"].is_string());
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (2, 0));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_for_a_day_after_a_rotation_and_then_the_new_one_alone() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    tell(&bench, account, &server.url("/"), None).await;
    let old = secret(&bench, account).await;
    let rotated = ask(&bench, account, "POST", "/api/webhook/rotate-secret", None).await;
    assert_eq!((rotated.status, &rotated.body["previous_secret"]), (200, &json!(old)));
    let new = secret(&bench, account).await;
    assert_ne!(new, old);
    let signed = |request: &Request| {
        [&old, &new]
            .map(|secret| Webhook::new(secret).unwrap().verify(&request.body, &request.headers).is_ok())
    };
    done(&bench, account, json!({})).await;
    tick(&bench).await;
    assert_eq!(signed(&server.requests()[0]), [true, true]);
    bench.sql("UPDATE punchcard.webhooks SET rotated_at = rotated_at - interval '25 hours'").await;
    done(&bench, account, json!({})).await;
    tick(&bench).await;
    assert_eq!(signed(&server.requests()[1]), [false, true]);
    let shown = ask(&bench, account, "GET", "/api/webhook", None).await.body;
    assert_eq!((&shown["previous_secret"], &shown["previous_secret_until"]), (&Value::Null, &Value::Null));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_it_has_recorded_it_sends_it_again_as_the_same() {
    let bench = Bench::new().await;
    let slow = Arc::new(AtomicU64::new(20));
    let seconds = Arc::clone(&slow);
    let server = receiver(move |_| {
        Response::bytes(200, "").delay(Duration::from_secs(seconds.load(Ordering::SeqCst)))
    });
    let server = server.await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    tell(&bench, account, &server.url("/"), None).await;
    let job = done(&bench, account, json!({})).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    for _ in 0..600 {
        if !server.requests().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(run.kill(), "killed in the middle of it");
    run.wait().await.unwrap_err();
    slow.store(0, Ordering::SeqCst);
    let summary = tick(&bench).await;
    assert_eq!(summary["webhooks"]["delivered"], 0, "nobody else may yet: {summary}");
    all_due(&bench).await;
    assert_eq!(tick(&bench).await["webhooks"]["delivered"], 1);
    let shown = deliveries(&bench, account, &job).await;
    assert_eq!((shown.len(), &shown[0]["attempt"]), (1, &json!(2)));
    let ids = ids(&server);
    assert_eq!((ids.len(), ids[0] == ids[1] && shown[0]["id"] == ids[0]), (2, true), "at least once");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_worker_sends_nothing_to_private_addresses_and_gives_it_up() {
    let (bench, server) = (Bench::new().await, listener().await);
    bench.scripted_kind("").await;
    let account = bench.account(50).await;
    let plain = server.url("/");
    let secure = plain.replace("http://", "https://");
    let short = secure.replace("127.0.0.1", "127.1");
    let number = secure.replace("127.0.0.1", "0x7f000001");
    let name = secure.replace("127.0.0.1", "localhost");
    let mut jobs = Vec::new();
    for url in [plain, secure, short, number, name] {
        jobs.push(done(&bench, account, json!({ "webhook": { "url": url } })).await);
    }
    let mut env = environment(&bench.url);
    env.retain(|(name, _)| name != "ALLOW_PRIVATE_TARGETS");
    let deployed = Function::new(binary("scripted-worker"), env).timeout(Duration::from_secs(60));
    let summary = deployed.invoke(&json!({})).await.unwrap();
    assert_eq!(summary["webhooks"], json!({ "delivered": 0, "retried": 0, "given_up": 5 }), "{summary}");
    for job in jobs {
        let shown = &deliveries(&bench, account, &job).await[0];
        assert_eq!((&shown["attempt"], &shown["next_attempt_at"]), (&json!(1), &Value::Null), "{shown}");
        assert!(shown["error"].is_string(), "{shown}");
    }
    assert_eq!(server.requests().len(), 0);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_leaves_everything_unanswered_takes_up_no_more_of_a_tick() {
    let bench = Bench::new().await;
    let silent =
        ScriptedServer::start(|_| Response::bytes(200, "").delay(Duration::from_secs(3_600))).await.unwrap();
    let quick = ScriptedServer::start(|_| Response::bytes(200, "")).await.unwrap();
    bench.sql("INSERT INTO punchcard.kinds (name, price) VALUES ('nothing', 0)").await;
    // Those of one account come first, and are more than are sent at once.
    for (url, jobs) in [(silent.url("/"), 70), (quick.url("/"), 1)] {
        let account = bench.account(1).await;
        bench
            .sql(&format!(
                "SELECT punchcard.set_webhook('{account}', '{url}');
                 SELECT punchcard.cancel(e.job_id) FROM generate_series(1, {jobs}) g,
                     LATERAL (SELECT job_id FROM punchcard.enqueue('{account}', 'nothing', json_build_object('n', g))) e"
            ))
            .await;
    }
    let begin = std::time::Instant::now();
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(
        (&summary["webhooks"]["delivered"], &summary["webhooks"]["retried"]),
        (&json!(1), &json!(70)),
        "{summary}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(40),
        "no second wait for the same receiver: {:?}",
        begin.elapsed()
    );
    // Half of the places at most are one account's; one or two are free again before it is clear that nobody answers.
    let sent = silent.requests().len();
    assert!((15..=30).contains(&sent) && quick.requests().len() == 1, "{sent}");
    let put_off = "SELECT count(*) FROM punchcard.messages WHERE error LIKE 'not sent:%'";
    assert_eq!(bench.count(put_off).await, 70 - sent as i64);
    bench.assert_audit_is_clean().await;
}
