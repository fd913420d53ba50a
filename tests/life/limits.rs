//! What bounds an account beside its credits.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{books, code, tick};
use crate::{
    cli::{limit, punchcard, refused, said},
    support::{Answer, Bench, bearer, event},
};

async fn buy(bench: &Bench, account: Uuid, kind: &str) -> Answer {
    bench.post(account, json!({ "kind": kind, "input": { "script": [{ "do": "done" }] } }), None).await
}

async fn batch(bench: &Bench, account: Uuid, jobs: &[Value]) -> Answer {
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let body = json!({ "jobs": jobs }).to_string();
    bench.request(event("POST", "/api/jobs:batch", &headers, Some(&body))).await
}

/// 429 with the header, and the same in the body.
fn assert_too_many(answer: &Answer, word: &str, limit: u64) {
    assert_eq!(code(answer), (429, word), "{}", answer.body);
    assert_eq!(answer.body["limit"], limit);
    let seconds: u64 = answer.headers["retry-after"].as_str().expect("a header").parse().expect("seconds");
    assert_eq!(answer.body["retry_after"], seconds);
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_jobs_are_bounded_and_make_room_when_they_end() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(100).await;
    limit(&bench, account, ["3", "none", "none"]);
    let first = buy(&bench, account, "test.scripted").await;
    assert_eq!((first.status, buy(&bench, account, "unserved").await.status), (202, 202));
    // Free ones count too.
    let free = buy(&bench, account, "free").await;
    assert_eq!(free.status, 202);
    let before = books(&bench).await;
    assert_too_many(&buy(&bench, account, "test.scripted").await, "too_many_jobs", 3);
    assert_too_many(&buy(&bench, account, "free").await, "too_many_jobs", 3);
    assert_eq!(books(&bench).await, before, "nothing is charged");
    assert_eq!(bench.balance(account).await, (85, 15));

    assert_eq!(tick(&bench).await["succeeded"], 1);
    assert_eq!(buy(&bench, account, "free").await.status, 202);
    assert_too_many(&buy(&bench, account, "free").await, "too_many_jobs", 3);
    let cancel = format!("/api/jobs/{}/cancel", free.body["id"].as_str().unwrap());
    assert_eq!(bench.act(account, &cancel).await.status, 200);
    assert_eq!(buy(&bench, account, "unserved").await.status, 202);
    assert_too_many(&buy(&bench, account, "free").await, "too_many_jobs", 3);
    assert_eq!(bench.balance(account).await, (80, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_unfinished_inputs_are_bounded() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    limit(&bench, account, ["none", "100", "none"]);
    let sized = |bytes: usize| json!({ "kind": "qr.svg", "input": "x".repeat(bytes - 2) });
    assert_eq!(bench.post(account, sized(60), None).await.status, 202);
    let before = books(&bench).await;
    assert_too_many(&bench.post(account, sized(41), None).await, "too_many_bytes", 100);
    assert_too_many(&batch(&bench, account, &[sized(20), sized(21)]).await, "too_many_bytes", 100);
    let huge = bench.post(account, sized(101), None).await;
    assert_eq!(code(&huge), (422, "over_limit"), "it never could");
    assert_eq!(books(&bench).await, before);
    assert_eq!(batch(&bench, account, &[sized(20), sized(20)]).await.status, 202);
    assert_eq!(bench.balance(account).await, (97, 3));
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(bench.balance(account).await, (100, 0), "no input of the kind: all failed");
    assert_eq!(bench.post(account, sized(100), None).await.status, 202);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueues_are_paced_over_a_minute() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    limit(&bench, account, ["none", "none", "2"]);
    for _ in 0..2 {
        assert_eq!(buy(&bench, account, "unserved").await.status, 202);
    }
    let before = books(&bench).await;
    for _ in 0..3 {
        assert_too_many(&buy(&bench, account, "unserved").await, "too_many_enqueues", 2);
    }
    assert_eq!(books(&bench).await, before, "those that are refused do not make it longer");
    let pass = |seconds: u32| {
        format!("UPDATE punchcard.accounts SET paced_until = paced_until - interval '{seconds} seconds'")
    };
    // One for each half of a minute that has passed.
    bench.sql(&pass(30)).await;
    assert_eq!(buy(&bench, account, "unserved").await.status, 202);
    assert_too_many(&buy(&bench, account, "unserved").await, "too_many_enqueues", 2);
    // However long: a minute's worth, and no more.
    bench.sql(&pass(3_600)).await;
    for _ in 0..2 {
        assert_eq!(buy(&bench, account, "unserved").await.status, 202);
    }
    let late = buy(&bench, account, "unserved").await;
    assert_too_many(&late, "too_many_enqueues", 2);
    assert!((10..=30).contains(&late.body["retry_after"].as_u64().unwrap()), "{}", late.body);
    assert_eq!(bench.balance(account).await, (75, 25));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_its_own_caps_is_not_bound_by_those_for_all() {
    let bench = Bench::new().await;
    let [strict, open, other] = [bench.account(10).await, bench.account(10).await, bench.account(10).await];
    let run = |args: &[&str]| said(&punchcard(&bench, &[&["limits"], args].concat()));
    assert_eq!(run(&["show"]), "");
    run(&["set", "--unfinished-jobs", "1"]);
    run(&["set", &strict.to_string(), "--unfinished-jobs", "0"]);
    run(&["set", &open.to_string(), "--unfinished-jobs", "none"]);
    let shown = run(&["show"]);
    let line = |who: &str, jobs: &str| {
        format!(
            "{who}: {{\"unfinished_jobs\":{jobs},\"unfinished_bytes\":null,\"enqueues_per_minute\":null}}"
        )
    };
    assert_eq!(shown.lines().next(), Some(&*line("all others", "1")));
    assert!(
        shown.contains(&line(&strict.to_string(), "0")) && shown.contains(&line(&open.to_string(), "null"))
    );

    assert_too_many(&buy(&bench, strict, "free").await, "too_many_jobs", 0);
    assert_eq!(buy(&bench, other, "qr.svg").await.status, 202);
    assert_too_many(&buy(&bench, other, "qr.svg").await, "too_many_jobs", 1);
    for _ in 0..3 {
        assert_eq!(buy(&bench, open, "qr.svg").await.status, 202);
    }
    run(&["set", "--unfinished-jobs", "2", "--unfinished-bytes", "1000", "--enqueues-per-minute", "60"]);
    assert_eq!(buy(&bench, other, "qr.svg").await.status, 202, "set anew, at once");
    assert_eq!((bench.balance(strict).await, bench.balance(other).await), ((10, 0), (8, 2)));
    for bad in [["--unfinished-jobs", "-1"], ["--enqueues-per-minute", "0"], ["--unfinished-bytes", "many"]] {
        assert!(!punchcard(&bench, &[&["limits", "set"], &bad[..]].concat()).status.success(), "{bad:?}");
    }
    let rows = bench.count("SELECT count(*) FROM punchcard.limits").await;
    assert_eq!(rows, 3);
    // Whoever else sets limits would do it by other rules: what is not named stays.
    let functions = "SELECT count(*) FROM pg_proc p
        WHERE p.pronamespace = 'punchcard'::regnamespace AND p.prosrc ~ 'INTO punchcard.limits'";
    assert_eq!(bench.count(functions).await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_posts_at_once_never_pass_a_cap_also_on_a_spread_account() {
    let bench = Bench::new().await;
    let (one, spread) = (bench.account(500).await, bench.account(500).await);
    bench.sql(&format!("SELECT punchcard.spread_account('{spread}', 8)")).await;
    limit(&bench, Uuid::nil(), ["7", "none", "none"]);
    let posts = (0..100).map(|n| buy(&bench, if n % 2 == 0 { one } else { spread }, "unserved"));
    let answers = join_all(posts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 14);
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        assert_too_many(answer, "too_many_jobs", 7);
    }
    assert_eq!((bench.balance(one).await, bench.balance(spread).await), ((465, 35), (465, 35)));

    limit(&bench, Uuid::nil(), ["none", "none", "10"]);
    bench.sql("UPDATE punchcard.accounts SET paced_until = NULL").await;
    let answers = join_all((0..50).map(|_| buy(&bench, spread, "unserved"))).await;
    let bought = answers.iter().filter(|answer| answer.status == 202).count();
    // One more for each six seconds that it took.
    assert!((10..=13).contains(&bought), "{bought}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_neither_counted_nor_refused() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    limit(&bench, account, ["1", "none", "2"]);
    let wanted = json!({ "kind": "unserved" });
    let first = bench.post(account, wanted.clone(), Some("k")).await;
    assert_eq!(first.status, 202);
    let before = books(&bench).await;
    for _ in 0..5 {
        let again = bench.post(account, wanted.clone(), Some("k")).await;
        assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]));
    }
    assert_eq!(books(&bench).await, before);
    // Neither does it use up a key to be refused.
    assert_too_many(&bench.post(account, wanted.clone(), Some("l")).await, "too_many_jobs", 1);
    let cancel = format!("/api/jobs/{}/cancel", first.body["id"].as_str().unwrap());
    assert_eq!(bench.act(account, &cancel).await.status, 200);
    assert_eq!(bench.post(account, wanted, Some("l")).await.status, 202);
    assert_eq!(bench.balance(account).await, (5, 5));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_passes_whole_or_not_at_all() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    limit(&bench, account, ["3", "none", "5"]);
    let jobs = vec![json!({ "kind": "unserved" }); 4];
    let before = books(&bench).await;
    let over = batch(&bench, account, &jobs).await;
    assert_eq!(code(&over), (422, "over_limit"), "it never could");
    assert_eq!(over.headers["retry-after"], Value::Null);
    assert_eq!(
        over.body["detail"],
        "An account may have 3 unfinished jobs with any number of bytes of input, and enqueue 5 a minute."
    );
    assert_eq!(books(&bench).await, before);
    assert_eq!(batch(&bench, account, &jobs[..2]).await.status, 202);
    let before = books(&bench).await;
    assert_too_many(&batch(&bench, account, &jobs[..2]).await, "too_many_jobs", 3);
    assert_eq!(books(&bench).await, before);
    limit(&bench, account, ["none", "none", "5"]);
    assert_eq!(batch(&bench, account, &jobs[..3]).await.status, 202, "two and three are five");
    assert_too_many(&batch(&bench, account, &jobs[..2]).await, "too_many_enqueues", 5);
    assert_eq!(bench.balance(account).await, (75, 25));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_redrive_pass_the_caps_too() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(100).await;
    let mut failed = Vec::new();
    for _ in 0..2 {
        failed.push(bench.script(account, json!([{ "do": "final" }])).await);
    }
    tick(&bench).await;
    limit(&bench, account, ["1", "none", "none"]);
    assert_eq!(buy(&bench, account, "unserved").await.status, 202);
    let before = books(&bench).await;
    assert_too_many(&bench.act(account, &format!("/api/jobs/{}/retry", failed[0])).await, "too_many_jobs", 1);
    assert_eq!(books(&bench).await, before);
    limit(&bench, account, ["2", "none", "none"]);
    let told = said(&punchcard(&bench, &["jobs", "redrive", "test.scripted"]));
    assert!(told.contains("1 retried, 1 refused") && told.contains("too_many_jobs"), "{told}");
    assert!(refused(&punchcard(&bench, &["jobs", "retry", &failed[1]])).contains("too_many_jobs"));
    assert_eq!(bench.balance(account).await, (85, 15));
    bench.assert_audit_is_clean().await;
}
