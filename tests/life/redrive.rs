//! Failed jobs in bulk, by filter, at a rate.

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{books, code, serve, tick};
use crate::{
    cli::{punchcard, said},
    support::Bench,
};

const PATH: &str = "/api/jobs:retry";

/// A bench with the kind, and the token of a service that may operate.
async fn bench() -> (Bench, String) {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let token = bench.service_token("operator", &["operate"]).await;
    (bench, token)
}

/// So many jobs that have failed, in one tick or by one statement, oldest first.
async fn failed(bench: &Bench, account: Uuid, count: usize, word: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bench.script(account, json!([{ "do": word }])).await);
    }
    assert_eq!(tick(bench).await["failed"], count);
    ids
}

async fn redrive(bench: &Bench, token: &str, wanted: Value) -> Value {
    redrive_of(bench, token, PATH, wanted).await
}

async fn redrive_of(bench: &Bench, token: &str, path: &str, mut wanted: Value) -> Value {
    wanted["kind"] = json!("test.scripted");
    let answer = serve(bench, token, path, Some(wanted)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn figures(body: &Value) -> (u64, u64) {
    let of = |name: &str| body[name].as_u64().expect("a count");
    (of("matched") - of("refused"), of("refused"))
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_are_bought_once_more_each_by_its_account() {
    let (bench, token) = bench().await;
    let (a, b) = (bench.account(20).await, bench.account(10).await);
    let mut ids = failed(&bench, a, 2, "final").await;
    ids.extend(failed(&bench, b, 1, "final").await);
    let canceled = bench.script(a, json!([{ "do": "final" }])).await;
    assert_eq!(bench.act(a, &format!("/api/jobs/{canceled}/cancel")).await.status, 200);
    bench.enqueue(a, "unserved", 1).await;
    bench.sql(&format!("SELECT punchcard.grant_credits('{a}', 5, 'more')")).await;

    let answer = redrive(&bench, &token, json!({})).await;
    assert_eq!(figures(&answer), (3, 0));
    for (told, old) in answer["data"].as_array().unwrap().iter().zip(&ids) {
        let owner = if *old == ids[2] { b } else { a };
        assert_eq!((&told["job_id"], &told["refused"]), (&json!(old), &Value::Null), "oldest first");
        let new = bench.job(owner, told["retried_as"].as_str().unwrap()).await;
        assert_eq!((&new["retry_of"], &new["status"]), (&json!(old), &json!("queued")));
        let before = bench.job(owner, old).await;
        assert_eq!(told["finished_at"], before["finished_at"]);
        assert_eq!((&before["retried_as"], &before["status"]), (&new["id"], &json!("failed")));
    }
    assert_eq!((bench.balance(a).await, bench.balance(b).await), ((0, 25), (0, 10)));
    // Those are retried already; who wants more redrives their retries, once they have failed.
    let before = books(&bench).await;
    assert_eq!(figures(&redrive(&bench, &token, json!({})).await), (0, 0));
    assert_eq!(books(&bench).await, before);
    assert_eq!(tick(&bench).await["failed"], 3);
    assert_eq!((bench.balance(a).await, bench.balance(b).await), ((20, 5), (10, 0)));
    assert_eq!(figures(&redrive(&bench, &token, json!({})).await), (3, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_which() {
    let (bench, token) = bench().await;
    let (a, b) = (bench.account(100).await, bench.account(100).await);
    let first = failed(&bench, a, 1, "final").await.remove(0);
    let second = failed(&bench, b, 1, "reject").await.remove(0);
    let third = failed(&bench, a, 1, "reject").await.remove(0);
    let at = bench.job(b, &second).await["finished_at"].clone();
    let only = async |mut wanted: Value, limit: &[&String]| {
        let path = match wanted.as_object_mut().unwrap().remove("account_id") {
            Some(id) => format!("{PATH}?account_id={}", id.as_str().unwrap()),
            None => PATH.to_owned(),
        };
        // What it would do, it says first.
        let before = redrive_of(
            &bench,
            &token,
            &format!("{path}{}validate_only=true", if path == PATH { "?" } else { "&" }),
            wanted.clone(),
        )
        .await;
        assert_eq!(
            (&before["matched"], &before["data"]),
            (&json!(limit.len()), &json!([])),
            "{wanted}: {before}"
        );
        assert_eq!(before["credits"], 10 * limit.len());
        let answer = redrive_of(&bench, &token, &path, wanted.clone()).await;
        assert_eq!(answer["credits"], 10 * limit.len());
        let told: Vec<_> =
            answer["data"].as_array().unwrap().iter().map(|job| job["job_id"].clone()).collect();
        assert_eq!(told, limit.iter().map(|id| json!(id)).collect::<Vec<_>>(), "{wanted}");
    };
    only(json!({ "code": "timed_out" }), &[]).await;
    only(json!({ "account_id": Uuid::new_v4() }), &[]).await;
    only(json!({ "code": "handler_error", "account_id": b }), &[]).await;
    only(json!({ "failed_before": "2020-01-01T00:00:00Z" }), &[]).await;
    only(json!({ "code": "invalid_input", "failed_after": at, "failed_before": at }), &[]).await;
    only(json!({ "failed_before": at }), &[&first]).await;
    only(json!({ "code": "invalid_input", "failed_after": at, "limit": 1 }), &[&second]).await;
    only(json!({ "code": "invalid_input", "account_id": a }), &[&third]).await;
    assert_eq!((bench.balance(a).await, bench.balance(b).await), ((80, 20), (90, 10)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_spreads_the_jobs() {
    let (bench, token) = bench().await;
    let account = bench.account(40).await;
    failed(&bench, account, 4, "final").await;
    assert_eq!(figures(&redrive(&bench, &token, json!({ "per_second": 0.01 })).await), (4, 0));
    assert_eq!(bench.balance(account).await, (0, 40), "all are held at once");
    let gaps = "SELECT round(extract(epoch FROM run_at - lag(run_at) OVER (ORDER BY run_at)))::bigint
        FROM punchcard.queue ORDER BY run_at OFFSET 1";
    for row in bench.rows(gaps).await {
        let seconds: i64 = row.get(0);
        assert!((95..=105).contains(&seconds), "{seconds} s apart");
    }
    assert_eq!(tick(&bench).await["failed"], 1);
    bench.wait(110).await;
    assert_eq!(tick(&bench).await["failed"], 1);
    assert_eq!(bench.balance(account).await, (20, 20));
    bench.wait(220).await;
    assert_eq!(tick(&bench).await["failed"], 2);
    assert_eq!(bench.balance(account).await, (40, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_unpaid_and_those_that_can_pay_go_on() {
    let (bench, token) = bench().await;
    let (poor, rich) = (bench.account(20).await, bench.account(10).await);
    failed(&bench, poor, 2, "final").await;
    failed(&bench, rich, 1, "final").await;
    bench.enqueue(poor, "unserved", 2).await; // 10 are left: for one of the two
    let answer = redrive(&bench, &token, json!({})).await;
    assert_eq!(figures(&answer), (2, 1));
    let refused: Vec<&Value> =
        answer["data"].as_array().unwrap().iter().filter(|job| !job["refused"].is_null()).collect();
    assert_eq!((refused.len(), &refused[0]["refused"]), (1, &json!("insufficient_credits")));
    assert_eq!(refused[0]["retried_as"], Value::Null);
    assert_eq!((bench.balance(poor).await, bench.balance(rich).await), ((0, 20), (0, 10)));
    let left = bench.job(poor, refused[0]["job_id"].as_str().unwrap()).await;
    assert_eq!((&left["status"], &left["retried_as"]), (&json!("failed"), &Value::Null), "it stays as it is");

    bench.sql(&format!("SELECT punchcard.grant_credits('{poor}', 10, 'more')")).await;
    let answer = redrive(&bench, &token, json!({})).await;
    assert_eq!(figures(&answer), (1, 0));
    assert_eq!(answer["data"][0]["job_id"], refused[0]["job_id"]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_database_refuses_stops_none_behind_it() {
    let (bench, token) = bench().await;
    let (barred, free) = (bench.account(100).await, bench.account(100).await);
    let oldest = failed(&bench, barred, 1, "final").await.remove(0);
    let others = failed(&bench, free, 2, "final").await;
    // A rule of the team's own.
    bench
        .sql(&format!(
            "CREATE FUNCTION public.bar() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'this account is closed'; END $$;
             CREATE TRIGGER bar BEFORE INSERT ON punchcard.jobs FOR EACH ROW
             WHEN (NEW.account_id = '{barred}') EXECUTE FUNCTION public.bar()"
        ))
        .await;
    let answer = redrive(&bench, &token, json!({})).await;
    assert_eq!(figures(&answer), (2, 1), "{answer}");
    let told: Vec<_> = answer["data"].as_array().unwrap().iter().map(|job| &job["job_id"]).collect();
    assert_eq!(told, [&oldest, &others[0], &others[1]]);
    let refused = &answer["data"][0];
    assert_eq!((&refused["refused"], &refused["retried_as"]), (&json!("refused_by_database"), &Value::Null));
    assert_eq!((bench.balance(barred).await, bench.balance(free).await), ((100, 0), (80, 20)));
    let told = said(&punchcard(&bench, &["jobs", "redrive", "test.scripted"]));
    assert!(told.contains("refused_by_database") && told.contains("0 retried, 1 refused"), "{told}");
    bench.sql("DROP TRIGGER bar ON punchcard.jobs").await;
    assert_eq!(figures(&redrive(&bench, &token, json!({})).await), (1, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_behind_those_that_cannot_pay() {
    let (bench, token) = bench().await;
    let (poor, rich) = (bench.account(20).await, bench.account(20).await);
    failed(&bench, poor, 2, "final").await;
    failed(&bench, rich, 2, "final").await;
    bench.enqueue(poor, "unserved", 4).await; // nothing is left
    let first = redrive(&bench, &token, json!({ "limit": 2 })).await;
    assert_eq!(figures(&first), (0, 2));
    let next = redrive(&bench, &token, json!({ "limit": 2, "cursor": first["next_cursor"] })).await;
    assert_eq!(figures(&next), (2, 0));
    let last = redrive(&bench, &token, json!({ "limit": 2, "cursor": next["next_cursor"] })).await;
    assert_eq!((figures(&last), &last["next_cursor"]), ((0, 0), &Value::Null));
    assert_eq!((bench.balance(poor).await, bench.balance(rich).await), ((0, 20), (0, 20)));
    let odd = serve(&bench, &token, PATH, Some(json!({ "kind": "free", "cursor": "odd" }))).await;
    assert_eq!((odd.status, &odd.body["code"]), (400, &json!("invalid_cursor")));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_service_that_may_operate_redrives() {
    let (bench, token) = bench().await;
    let backend = bench.service_token("backend", &["enqueue", "grant"]).await;
    let account = bench.account(10).await;
    failed(&bench, account, 1, "final").await;
    let before = books(&bench).await;
    assert_eq!(code(&bench.act(account, PATH).await), (403, "forbidden"));
    assert_eq!(code(&serve(&bench, &backend, PATH, Some(json!({}))).await), (403, "forbidden"));
    assert_eq!(code(&bench.get(account, PATH).await), (405, "method_not_allowed"));
    for (wanted, expected) in [
        (json!({ "kind": "free", "limit": 0 }), (422, "invalid_redrive")),
        (json!({ "kind": "free", "limit": -1 }), (422, "invalid_redrive")),
        (json!({ "limit": 1.5 }), (400, "invalid_field")),
        (json!({}), (422, "invalid_redrive")),
        (json!({ "kind": "free", "per_second": 0 }), (422, "invalid_redrive")),
        (json!({ "kind": "free", "per_second": -1 }), (422, "invalid_redrive")),
        (json!({ "kind": "free", "per_second": 1e300 }), (422, "invalid_redrive")),
        (json!({ "per_second": "5" }), (400, "invalid_field")),
        (json!({ "account_id": account }), (400, "unknown_field")),
        (json!({ "failed_after": "yesterday" }), (400, "invalid_failed_after")),
        (json!({ "failed_before": "2026-11-24 10:00:00Z" }), (400, "invalid_failed_before")),
        (json!({ "kind": "Not A Kind" }), (400, "invalid_kind")),
        (json!({ "code": "\0" }), (422, "nul_character")),
        (json!([]), (400, "not_an_object")),
    ] {
        assert_eq!(code(&serve(&bench, &token, PATH, Some(wanted.clone())).await), expected, "{wanted}");
    }
    assert_eq!(code(&serve(&bench, &token, PATH, None).await), (400, "body_required"));
    for (query, expected) in [
        ("account_id=7", (422, "invalid_account")),
        ("validate_only=1", (400, "invalid_validate_only")),
        ("limit=5", (400, "unknown_parameter")),
    ] {
        let answer = serve(&bench, &token, &format!("{PATH}?{query}"), Some(json!({ "kind": "free" }))).await;
        assert_eq!(code(&answer), expected, "{query}");
    }
    // What it would cost is said at the prices of now.
    bench.sql("UPDATE punchcard.kinds SET price = 12 WHERE name = 'test.scripted'").await;
    let only = format!("{PATH}?validate_only=true");
    let now = redrive_of(&bench, &token, &only, json!({})).await;
    assert_eq!((&now["matched"], &now["refused"], &now["credits"]), (&json!(1), &json!(0), &json!(12)));
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'test.scripted'").await;
    let retired = redrive_of(&bench, &token, &only, json!({})).await;
    assert_eq!((&retired["refused"], &retired["credits"]), (&json!(1), &json!(0)));
    let other = serve(&bench, &token, PATH, Some(json!({ "kind": "qr.svg", "limit": 1_000_000 }))).await;
    assert_eq!(other.body["limit"], 1_000, "it is lowered, and said");
    assert_eq!(figures(&other.body), (0, 0), "of that kind alone");
    assert_eq!(books(&bench).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_lists_the_dead_letters_and_sees_before_what_a_redrive_would_take() {
    let (bench, _) = bench().await;
    let account = bench.account(100).await;
    let owner = account.to_string();
    let oldest = failed(&bench, account, 1, "final").await.remove(0);
    let middle = failed(&bench, account, 1, "reject").await.remove(0);
    let newest = failed(&bench, account, 1, "final").await.remove(0);
    let run = |args: &[&str]| said(&punchcard(&bench, &[&["jobs"], args].concat()));
    // The ids of what is listed, in their order.
    let ids = |listed: &str| -> Vec<String> {
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        listed.lines().map(id).collect()
    };
    let all = run(&["failed", "--kind", "test.scripted", "--account", &owner]);
    assert_eq!(ids(&all), [&*newest, &middle, &oldest], "newest first");
    assert!(all.contains(r#""code":"invalid_input""#), "{all}");
    assert_eq!(ids(&run(&["failed", "--code", "invalid_input"])), [&*middle]);
    assert_eq!(ids(&run(&["failed", "--limit", "1"])), [&*newest]);
    assert_eq!(run(&["failed", "--kind", "qr.svg"]), "");
    let at = bench.job(account, &middle).await["finished_at"].as_str().unwrap().to_owned();
    assert_eq!(ids(&run(&["failed", "--from", &at])), [&*newest, &middle]);
    assert_eq!(ids(&run(&["failed", "--until", &at])), [&*oldest]);

    let before = books(&bench).await;
    let dry = |more: &[&str]| ids(&run(&[&["redrive", "test.scripted", "--dry-run"], more].concat()));
    assert_eq!(dry(&[]), [&*oldest, &middle, &newest], "in the order of a redrive");
    assert_eq!(dry(&["--limit", "1"]), [&*oldest]);
    assert_eq!(books(&bench).await, before);
    assert!(run(&["redrive", "test.scripted", "--limit", "1"]).contains("1 retried, 0 refused"));
    assert!(!bench.job(account, &oldest).await["retried_as"].is_null());
    assert_eq!(bench.balance(account).await, (90, 10));
    assert_eq!(dry(&["--limit", "1"]), [&*middle], "what was retried is left");
    assert_eq!(run(&["retry", &middle]).trim().len(), "retried as ".len() + 36);
    assert_eq!(dry(&[]), [&*newest]);
    let wrong = punchcard(&bench, &["jobs", "redrive", "test.scripted", "--per-second", "0"]);
    assert!(
        !wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("from 0.001 to 10000")
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_of_many_goes_page_by_page_at_one_rate() {
    let (bench, _) = bench().await;
    let (account, poor) = (bench.account(6_010).await, bench.account(10).await);
    bench.enqueue(account, "test.scripted", 601).await;
    bench.enqueue(poor, "test.scripted", 1).await;
    bench
        .sql(
            "SELECT punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), array_agg('fail'::text),
                 array_agg(0::double precision), array_agg(NULL::text), array_agg('{\"code\":\"timed_out\"}'::text))
             FROM punchcard.claim(1000, '{test.scripted}', false, 60, 60) c;
             SELECT punchcard.enqueue(a.id, 'unserved') FROM punchcard.accounts a WHERE a.available = 10",
        )
        .await;
    let args = ["jobs", "redrive", "test.scripted", "--code", "timed_out", "--per-second", "10"];
    let told = said(&punchcard(&bench, &args));
    assert!(told.contains("601 retried, 1 refused") && told.contains("insufficient_credits"), "{told}");
    let retried = "SELECT count(*) FROM punchcard.jobs WHERE retry_of IS NOT NULL";
    assert_eq!(bench.count(retried).await, 601);
    let spread = "SELECT round(extract(epoch FROM max(run_at) - min(run_at)))::bigint FROM punchcard.queue
        WHERE kind = 'test.scripted'";
    let seconds = bench.count(spread).await;
    assert!((58..=75).contains(&seconds), "602 jobs, ten a second: {seconds} s");
    assert_eq!(bench.balance(account).await, (0, 6_010));
    assert_eq!(bench.balance(poor).await, (5, 5));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_system_failed_at_is_bought_anew_by_its_code_alone() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.enqueue(account, "qr.svg", 1).await;
    // As an import writes it.
    bench
        .sql(
            "SELECT punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], ARRAY['fail'], ARRAY[0], ARRAY[NULL],
                    ARRAY['{\"code\":\"imported\",\"message\":\"it broke\"}'])
             FROM punchcard.claim(1, ARRAY['qr.svg'], true, 600, 600) c",
        )
        .await;
    for (more, expected) in [
        (&[][..], "0 retried, 0 refused"),
        (&["--code", "timed_out"], "0 retried, 0 refused"),
        (&["--code", "imported"], "1 retried, 0 refused"),
    ] {
        let told = said(&punchcard(&bench, &[&["jobs", "redrive", "qr.svg"], more].concat()));
        assert!(told.contains(expected), "{more:?}: {told}");
    }
    bench.assert_audit_is_clean().await;
}
