//! Waiting for a job: `Prefer: wait=N`, `?wait=N`, entity tags, and when to look again.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, join3};
use local::lambda::Function;
use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{assert_refused, code, credits, tick, until_running};
use crate::support::{
    Answer, Bench, bearer, binary, environment, event,
    wire::{Mode, Wire},
};

fn scripted(step: Value) -> Value {
    json!({ "kind": "test.scripted", "input": { "script": [step] } })
}

/// `POST /api/jobs` with a `Prefer`.
fn preferring(account: Uuid, prefer: &str, job: &Value, key: &str) -> Value {
    let token = bearer(account);
    let headers = [
        ("authorization", token.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key),
        ("prefer", prefer),
    ];
    event("POST", "/api/jobs", &headers, Some(&job.to_string()))
}

fn getting(account: Uuid, path: &str) -> Value {
    event("GET", path, &[("authorization", &bearer(account))], None)
}

/// The answer, and how many seconds it took.
async fn timed(bench: &Bench, event: Value) -> (Answer, f64) {
    let begin = Instant::now();
    let answer = bench.request(event).await;
    (answer, begin.elapsed().as_secs_f64())
}

/// Runs what is queued once there is something.
async fn work(bench: &Bench) -> Value {
    until_bought(bench).await;
    tick(bench).await
}

async fn until_bought(bench: &Bench) {
    while bench.count("SELECT count(*) FROM punchcard.queue").await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The longest wait was granted, or what an invocation had left of it that bought the job late, as on a busy machine.
fn granted_whole(applied: &Value) {
    let seconds = applied.as_str().and_then(|it| it.strip_prefix("wait=")).expect("it was honoured");
    assert!((18..=25).contains(&seconds.parse::<u32>().expect("seconds")), "{applied}");
}

fn seconds(answer: &Answer) -> u64 {
    answer.headers["retry-after"].as_str().expect("a header").parse().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_within_the_wait_is_answered_as_it_ended() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    // More than is given is wished for: then the longest there is.
    let post =
        preferring(account, "respond-async, wait=300", &scripted(json!({ "do": "done", "seconds": 1 })), "a");
    let ((answer, took), _) = join(timed(&bench, post.clone()), work(&bench)).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{}", answer.body);
    assert_eq!((&answer.body["output"], &answer.body["credits"]), (&json!({ "run": 1 }), &credits(0, 10, 0)));
    granted_whole(&answer.headers["preference-applied"]);
    assert_eq!(answer.headers["location"], format!("/api/jobs/{}", answer.body["id"].as_str().unwrap()));
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["idempotent-replayed"]),
        (&Value::Null, &Value::Null)
    );
    assert!((1.0..20.0).contains(&took), "{took} s");

    let (again, took) = timed(&bench, post).await;
    assert_eq!(
        (again.status, &again.body, &again.headers["idempotent-replayed"]),
        (200, &answer.body, &json!("true"))
    );
    assert!(took < 10.0, "a final job is not waited for: {took} s");

    let post = preferring(account, "wait=25", &scripted(json!({ "do": "final" })), "b");
    let ((answer, _), _) = join(timed(&bench, post), work(&bench)).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("failed")), "{}", answer.body);
    let id = bench.script(account, json!([{ "do": "done", "seconds": 1 }])).await;
    let get = getting(account, &format!("/api/jobs/{id}?wait=25"));
    let ((answer, took), _) = join(timed(&bench, get), tick(&bench)).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("succeeded")), "{}", answer.body);
    assert!((1.0..20.0).contains(&took), "{took} s");
    assert_eq!(bench.balance(account).await, (10, 0), "two charged, one released");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_answers_the_job_as_it_is() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let post = preferring(account, "wait=2", &scripted(json!({ "do": "done", "seconds": 9 })), "a");
    let (answer, took) = timed(&bench, post.clone()).await;
    assert_eq!((answer.status, &answer.body["status"]), (202, &json!("queued")), "{}", answer.body);
    assert_eq!((&answer.headers["preference-applied"], seconds(&answer)), (&json!("wait=2"), 2));
    assert!((2.0..20.0).contains(&took), "{took} s");
    let id = answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.job(account, &id).await, answer.body);

    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &id).await;
    let get = getting(account, &format!("/api/jobs/{id}?wait=1"));
    let ((got, took), (again, took_again)) = join(timed(&bench, get), timed(&bench, post)).await;
    assert_eq!((got.status, &got.body["status"], seconds(&got)), (200, &json!("running"), 2));
    assert!(took >= 1.0, "{took} s");
    assert_eq!((again.status, &again.body["status"]), (200, &json!("running")), "a replay waits too");
    assert!(took_again >= 2.0, "{took_again} s");
    assert_eq!((&again.headers["idempotent-replayed"], seconds(&again)), (&json!("true"), 2));
    assert_eq!(
        (&again.body["credits"], bench.balance(account).await),
        (&credits(10, 0, 0), (10, 10)),
        "bought once"
    );
    assert_eq!(run.wait().await.unwrap()["succeeded"], 1);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_as_long_as_was_asked_for_or_as_the_invocation_lasts() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    // As it is deployed, and one that has to answer earlier.
    let api = |seconds| {
        Function::new(binary("api"), environment(&bench.url))
            .timeout(Duration::from_secs(seconds))
            .max_concurrency(2)
    };
    let (deployed, hasty) = (api(28), api(6));
    let get = getting(account, &format!("/api/jobs/{id}?wait=25"));
    let post = preferring(account, "wait=60", &scripted(json!({ "do": "done" })), "a");
    let asked = [(&deployed, &get), (&deployed, &post), (&hasty, &get)];
    let answers = join_all(asked.map(|(api, event)| async move {
        let begin = Instant::now();
        let answer = api.invoke(event).await.expect("an answer in time");
        (answer["statusCode"].as_u64().unwrap(), begin.elapsed().as_secs_f64(), answer["headers"].clone())
    }))
    .await;
    let told: Vec<_> = answers.iter().map(|(status, took, _)| (*status, *took)).collect();
    assert_eq!(told.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 202, 200]);
    granted_whole(&answers[1].2["preference-applied"]);
    assert!(told[..2].iter().all(|(_, took)| (24.0..28.0).contains(took)), "{told:?}");
    assert!((3.0..6.0).contains(&told[2].1), "{told:?}");
    assert_eq!(bench.balance(account).await, (0, 20));
    assert_eq!(tick(&bench).await["succeeded"], 2);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_a_few_narrow_reads_and_holds_nothing_in_the_database() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url));
    let whole = getting(account, &format!("/api/jobs/{id}"));
    assert_eq!(api.invoke(&whole).await.unwrap()["statusCode"], 200);
    assert_eq!(wire.executed(), 1, "no wait, no read for it");
    let whole_bytes = wire.rows();

    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'punchcard_app'
                AND state <> 'idle' AND clock_timestamp() - state_change > interval '2 seconds'";
    let look = async {
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(bench.count(held).await, 0, "a statement or a transaction lasts as long as the wait");
        }
    };
    let get = getting(account, &format!("/api/jobs/{id}?wait=4"));
    let post = preferring(account, "wait=4", &scripted(json!({ "do": "done" })), "a");
    let (answer, ()) = join(api.invoke(&get), look).await;
    assert_eq!(answer.unwrap()["statusCode"], 200);
    // After 0, 0.1, 0.25, 0.5, 0.8, 1.3, 2.1 and 3.2 s, and the job.
    let (reads, bytes) = (wire.executed() - 1, wire.rows());
    assert!((2..=8).contains(&reads), "{reads} reads");
    assert!(bytes < whole_bytes + 10 * reads, "{bytes} bytes, {whole_bytes} of them the job");
    assert_eq!(api.invoke(&post).await.unwrap()["statusCode"], 202);
    let statements = wire.executed();
    assert!((3..=9).contains(&statements), "{statements} statements, to buy and to show among them");

    assert_eq!(tick(&bench).await["succeeded"], 2);
    assert_eq!(api.invoke(&get).await.unwrap()["statusCode"], 200);
    assert_eq!((wire.executed(), wire.named()), (2, 0), "final at once");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_database_interrupts_answers_what_was_bought_as_it_was() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url)).timeout(Duration::from_secs(20));
    let post = preferring(account, "wait=15", &scripted(json!({ "do": "done" })), "a");
    let begin = Instant::now();
    let silence = async {
        until_bought(&bench).await;
        wire.set(Mode::BlackHole);
    };
    let (answer, ()) = join(api.invoke(&post), silence).await;
    let answer = answer.unwrap();
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(
        (&answer["statusCode"], &answer["headers"]["retry-after"]),
        (&json!(202), &json!("2")),
        "{answer}"
    );
    assert_eq!(answer["headers"]["preference-applied"], Value::Null, "it was not honoured");
    assert!(took < 12.0, "{took} s");
    let job: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    wire.set(Mode::Through);
    let id = job["id"].as_str().unwrap();
    assert_eq!(bench.job(account, id).await, job);
    assert_eq!(bench.balance(account).await, (10, 10), "bought once");

    // A job that was to be shown, and cannot be.
    let hasty = Function::new(binary("api"), environment(&wire.url)).timeout(Duration::from_secs(6));
    assert_eq!(hasty.invoke(&getting(account, "/api/health")).await.unwrap()["statusCode"], 200);
    let get = getting(account, &format!("/api/jobs/{id}?wait=10"));
    let silence = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.set(Mode::BlackHole);
    };
    let (answer, ()) = join(hasty.invoke(&get), silence).await;
    assert_eq!(answer.unwrap()["statusCode"], 503);
    wire.set(Mode::Through);
    assert_eq!(tick(&bench).await["succeeded"], 1);
    assert_eq!(
        hasty.invoke(&get).await.unwrap()["statusCode"],
        200,
        "final, and served as if nothing had been"
    );
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_waits_are_refused_bad_wishes_passed_over_and_others_jobs_not_waited_for() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(40).await, bench.account(0).await);
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let path = format!("/api/jobs/{id}");
    for wait in ["", "x", "-1", "+1", "1.5", "26", "1,2", "99999999999999999999", "%31"] {
        assert_refused(&bench.get(account, &format!("{path}?wait={wait}")).await, 400, "invalid_wait");
    }
    assert_refused(&bench.get(account, &format!("{path}?waits=1")).await, 400, "unknown_parameter");
    assert_eq!(bench.get(account, &format!("{path}?wait=0")).await.status, 200);
    for wish in ["wait=soon", "wait=-5, wait=20", "respond-async; wait=20"] {
        let post =
            preferring(account, wish, &scripted(json!({ "do": "done" })), wish.split(',').next().unwrap());
        let (answer, took) = timed(&bench, post).await;
        assert_eq!((answer.status, &answer.headers["preference-applied"]), (202, &Value::Null), "{wish}");
        assert!(took < 10.0, "{wish}: {took} s");
    }
    assert_eq!(bench.balance(account).await, (0, 40));
    let refused = preferring(account, "wait=20", &scripted(json!({ "do": "done" })), "more");
    let nobodys = format!("/api/jobs/{}?wait=25", Uuid::new_v4());
    let (others, unknown, refused) = join3(
        timed(&bench, getting(other, &format!("{path}?wait=25"))),
        timed(&bench, getting(account, &nobodys)),
        timed(&bench, refused),
    )
    .await;
    for ((answer, took), expected) in [
        (others, (404, "not_found")),
        (unknown, (404, "not_found")),
        (refused, (402, "insufficient_credits")),
    ] {
        assert_eq!(code(&answer), expected);
        assert!(took < 10.0, "{took} s");
    }
    let anybody = event("GET", &format!("{path}?wait=25"), &[], None);
    assert_eq!(timed(&bench, anybody).await.0.status, 401);
    assert_eq!(tick(&bench).await["succeeded"], 4);
    bench.assert_audit_is_clean().await;
}

/// GET with an `If-None-Match`.
async fn unless(bench: &Bench, account: Uuid, path: &str, known: &str) -> Answer {
    let headers = [("authorization", bearer(account)), ("if-none-match", known.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    bench.request(event("GET", path, &headers, None)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_caller_has_as_it_is_is_not_sent_again() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let path = format!("/api/jobs/{id}");
    let tag_of = |answer: &Answer| answer.headers["etag"].as_str().expect("a tag").to_owned();
    let queued = bench.get(account, &path).await;
    let tag = tag_of(&queued);
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 16, "strong: {tag}");
    assert_eq!(queued.headers["cache-control"], "private, no-cache", "it may be kept, and asked for again");
    assert_eq!(tag_of(&bench.get(account, &path).await), tag);
    for known in [tag.clone(), format!("W/{tag}"), "*".into(), format!("\"a,b\", W/\"c\" , {tag},")] {
        let answer = unless(&bench, account, &path, &known).await;
        assert_eq!(
            (answer.status, &answer.body, tag_of(&answer)),
            (304, &Value::Null, tag.clone()),
            "{known}"
        );
        assert_eq!((&answer.headers["cache-control"], seconds(&answer)), (&json!("private, no-cache"), 2));
    }
    for other in ["\"a\"".to_owned(), tag.replace('"', ""), format!("\"{tag}"), String::new()] {
        let answer = unless(&bench, account, &path, &other).await;
        assert_eq!((answer.status, &answer.body), (200, &queued.body), "{other}");
    }
    let raw = event("GET", &path, &[("authorization", &bearer(account)), ("if-none-match", &tag)], None);
    assert_eq!(bench.api.invoke(&raw).await.unwrap()["body"], "", "no body at all");

    // Nothing new after a wait, and then something.
    let waiting = format!("{path}?wait=1");
    assert_eq!(unless(&bench, account, &waiting, &tag).await.status, 304);
    let waiting = format!("{path}?wait=25");
    let (answer, _) = join(unless(&bench, account, &waiting, &tag), tick(&bench)).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.body["status"], "queued", "it is running, or has ended");
    let last = tag_of(&bench.get(account, &path).await);
    assert_ne!(last, tag);
    let known = unless(&bench, account, &waiting, &format!("{tag}, {last}")).await;
    assert_eq!((known.status, &known.headers["retry-after"]), (304, &Value::Null), "it stays so");

    // What is refused is neither kept nor tagged, whatever the caller has.
    let other = unless(&bench, bench.account(0).await, &path, "*").await;
    assert_eq!((other.status, &other.headers["etag"]), (404, &Value::Null));
    assert_eq!(other.headers["cache-control"], "no-store");
    assert_eq!(bench.get(account, "/api/credits").await.headers["cache-control"], "no-store");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_that_shows_an_unfinished_job_says_when_to_look_again() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(60).await;
    let at = async |delay: &str| -> String {
        let at = format!("SELECT to_char(now() + interval '{delay}', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
        bench.rows(&at).await[0].get(0)
    };
    let mut job = scripted(json!({ "do": "done" }));
    for (delay, expected) in [("-1 hour", 2..=2), ("40 seconds", 20..=40), ("1 day", 60..=60)] {
        job["run_at"] = at(delay).await.into();
        let bought = bench.post(account, job.clone(), Some(delay)).await;
        let path = format!("/api/jobs/{}", bought.body["id"].as_str().unwrap());
        let (shown, known) = join(bench.get(account, &path), unless(&bench, account, &path, "*")).await;
        let replayed = bench.post(account, job.clone(), Some(delay)).await;
        for (answer, status) in [(bought, 202), (shown, 200), (known, 304), (replayed, 200)] {
            assert_eq!(answer.status, status, "{delay}: {}", answer.body);
            assert!(expected.contains(&seconds(&answer)), "{delay}: {}", answer.headers);
        }
    }
    let id = bench.script(account, json!([{ "do": "stop_then_err" }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &id).await;
    let path = format!("/api/jobs/{id}");
    let canceled = bench.act(account, &format!("{path}/cancel")).await;
    assert_eq!((canceled.status, seconds(&canceled)), (202, 2));
    run.wait().await.unwrap();
    let ended = bench.get(account, &path).await;
    assert_eq!((&ended.body["status"], &ended.headers["retry-after"]), (&json!("canceled"), &Value::Null));
    let retried = bench.act(account, &format!("{path}/retry")).await;
    assert_eq!((retried.status, seconds(&retried)), (202, 2));
    let id = retried.body["id"].as_str().unwrap();
    let canceled = bench.act(account, &format!("/api/jobs/{id}/cancel")).await;
    assert_eq!((canceled.status, &canceled.headers["retry-after"]), (200, &Value::Null), "at once");
    assert_eq!(bench.balance(account).await, (30, 20), "one done, two to come");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_the_job_and_waits_is_answered_on_any_change() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let answer = bench.post(account, json!({ "kind": "unserved" }), None).await;
    let id = answer.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/jobs/{id}");
    let asking = async |known: &str, wait: u64| {
        let path = format!("{path}?wait={wait}");
        let headers = [("authorization", bearer(account)), ("if-none-match", known.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        timed(&bench, event("GET", &path, &headers, None)).await
    };
    let tag_of = |answer: &Answer| answer.headers["etag"].as_str().expect("a tag").to_owned();
    let first = tag_of(&bench.get(account, &path).await);
    let (unknown, _) = asking("\"other\"", 25).await;
    assert_eq!((unknown.status, tag_of(&unknown)), (200, first.clone()), "at once");
    let (known, seconds) = asking(&first, 1).await;
    assert!(known.status == 304 && seconds >= 0.9, "{} after {seconds} s", known.status);
    // Claimed, its progress said, canceled: each is a change.
    let mut tag = first;
    for (change, member, value) in [
        ("SELECT * FROM punchcard.claim(1, '{unserved}', true, 60, 60)", "/status", json!("running")),
        (
            "SELECT * FROM punchcard.check_in((SELECT array_agg(job_id) FROM punchcard.queue),
                 (SELECT array_agg(lease_token) FROM punchcard.queue), '{40}', '{drawing}', '{NULL}')",
            "/progress/percent",
            json!(40),
        ),
        (
            "SELECT punchcard.settle(array_agg(job_id), array_agg(lease_token), '{fail}', '{0}', '{NULL}',
                 ARRAY['{\"code\":\"c\",\"message\":\"m\",\"attempt\":1}']) FROM punchcard.queue",
            "/status",
            json!("failed"),
        ),
    ] {
        let changing = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            bench.sql(change).await;
        };
        let ((answer, seconds), ()) = join(asking(&tag, 25), changing).await;
        assert_eq!((answer.status, answer.body.pointer(member)), (200, Some(&value)), "{}", answer.body);
        assert!((0.3..20.0).contains(&seconds), "{seconds} s");
        tag = tag_of(&answer);
    }
    let (known, seconds) = asking(&tag, 25).await;
    assert!(
        known.status == 304 && seconds < 20.0,
        "a final job changes no more: {} after {seconds} s",
        known.status
    );
}
