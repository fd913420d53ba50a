//! A failed or canceled job once more, as a new job.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    help::{books, code, serve, tick},
    webhooks::ask,
};
use crate::support::{Answer, Bench};

async fn retry(bench: &Bench, account: Uuid, id: &str) -> Answer {
    bench.act(account, &format!("/api/jobs/{id}/retry")).await
}

/// A job that has failed for good, and was released.
async fn failed(bench: &Bench, account: Uuid) -> String {
    let id = bench.script(account, json!([{ "do": "final" }])).await;
    assert_eq!(tick(bench).await["failed"], 1);
    id
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_bought_once_more_as_a_new_job_at_the_price_of_now() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let wanted = json!({
        "kind": "test.scripted", "input": { "script": [{ "do": "final" }], "n": 1.50 }, "priority": 3,
        "metadata": { "order": "7" }, "tags": ["red", "blue"],
        "retry": { "max_attempts": 2, "backoff": "fixed", "backoff_delays": [4, 5] }
    });
    let old = id(&bench.post(account, wanted, None).await);
    tick(&bench).await;
    assert_eq!(bench.balance(account).await, (20, 0), "released");
    let before = bench.job(account, &old).await;
    assert_eq!((&before["status"], &before["retried_as"]), (&json!("failed"), &Value::Null));

    bench.sql("UPDATE punchcard.kinds SET price = 7 WHERE name = 'test.scripted'").await;
    let answer = retry(&bench, account, &old).await;
    let new = id(&answer);
    assert_ne!(new, old);
    assert_eq!(answer.headers["location"], format!("/api/jobs/{new}"));
    assert_eq!(answer.headers["retry-after"], "2");
    assert_eq!(answer.body["retry_of"], old.as_str());
    assert_eq!((&answer.body["status"], &answer.body["attempt"]), (&json!("queued"), &json!(0)));
    assert_eq!((&answer.body["output"], &answer.body["error"]), (&Value::Null, &Value::Null));
    let credits = json!({ "price": 7, "held": 7, "captured": 0, "released": 0, "refunded": 0 });
    assert_eq!(answer.body["credits"], credits);
    assert_eq!(bench.balance(account).await, (13, 7), "a hold of its own");
    for same in ["kind", "account_id", "input", "priority", "max_attempts", "metadata", "tags"] {
        assert_eq!(answer.body[same], before[same], "{same}");
    }
    assert_eq!(answer.body["max_attempts"], 2);
    let same =
        "SELECT count(DISTINCT (retry::text, input::text)) FROM punchcard.jobs WHERE retry IS NOT NULL";
    assert_eq!(bench.count(same).await, 1, "the wishes too, and the input letter for letter");

    let mut after = bench.job(account, &old).await;
    assert_eq!(after["retried_as"], new.as_str());
    after["retried_as"] = Value::Null;
    assert_eq!(after, before, "the old one stays as it was");
    assert_eq!(bench.job(account, &new).await, answer.body);
    let labeled = bench.get(account, "/api/jobs?label=red&label=order=7").await.body;
    assert_eq!(labeled["data"].as_array().unwrap().len(), 2, "found by the same labels");
    assert_eq!(tick(&bench).await["failed"], 1);
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_is_bought_once_more_and_captured_once() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let old = bench.script(account, json!([{ "do": "done" }])).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{old}/cancel")).await.status, 200);
    assert_eq!(bench.balance(account).await, (10, 0));
    let new = id(&retry(&bench, account, &old).await);
    assert_eq!(bench.balance(account).await, (0, 10));
    assert_eq!(tick(&bench).await["succeeded"], 1);
    let credits = |captured: i64, released: i64| json!({ "price": 10, "held": 0, "captured": captured, "released": released, "refunded": 0 });
    let (old, new) = (bench.job(account, &old).await, bench.job(account, &new).await);
    assert_eq!((&old["status"], &old["credits"]), (&json!("canceled"), &credits(0, 10)));
    assert_eq!((&new["status"], &new["credits"]), (&json!("succeeded"), &credits(10, 0)));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credits_nothing_changes_and_it_can_be_retried_later() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let old = failed(&bench, account).await;
    bench.enqueue(account, "unserved", 2).await;
    let before = books(&bench).await;
    let refused = retry(&bench, account, &old).await;
    assert_eq!(code(&refused), (402, "insufficient_credits"));
    assert_eq!((&refused.body["required"], &refused.body["available"]), (&json!(10), &json!(0)));
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.job(account, &old).await["retried_as"], Value::Null);

    bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 10, 'more')")).await;
    id(&retry(&bench, account, &old).await);
    assert_eq!(bench.balance(account).await, (0, 20));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_retried_once_also_by_ten_at_once() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(100).await;
    let old = failed(&bench, account).await;
    let answers = join_all((0..10).map(|_| retry(&bench, account, &old))).await;
    let (bought, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert_eq!((bought.len(), refused.len()), (1, 9));
    for answer in refused {
        assert_eq!(code(answer), (409, "already_retried"));
        assert_eq!(answer.body["retried_as"], bought[0].body["id"], "it names the job");
        assert_eq!(answer.body["detail"], "The job has been retried already.");
    }
    assert_eq!(bench.balance(account).await, (90, 10));
    let before = books(&bench).await;
    assert_eq!(code(&retry(&bench, account, &old).await), (409, "already_retried"));
    assert_eq!(books(&bench).await, before);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_failed_is_retried_in_its_turn() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let first = failed(&bench, account).await;
    let second = id(&retry(&bench, account, &first).await);
    assert_eq!(tick(&bench).await["failed"], 1);
    let third = id(&retry(&bench, account, &second).await);
    assert_eq!(bench.balance(account).await, (0, 10));
    assert_eq!(tick(&bench).await["failed"], 1);
    let second = bench.job(account, &second).await;
    assert_eq!((&second["retry_of"], &second["retried_as"]), (&json!(first), &json!(third)));
    assert_eq!(code(&retry(&bench, account, &first).await), (409, "already_retried"));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'hold'").await, 3);
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'release'").await, 3);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_succeeded_or_is_not_final_is_not_retried() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    let succeeded = bench.script(account, json!([{ "do": "done" }])).await;
    tick(&bench).await;
    let running = bench.script(account, json!([{ "do": "done" }])).await;
    bench.rows("SELECT job_id FROM punchcard.claim(1, '{test.scripted}', false, 60, 60)").await;
    assert_eq!(bench.job(account, &running).await["status"], "running");
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    let before = books(&bench).await;
    for id in [succeeded, running, queued] {
        assert_eq!(code(&retry(&bench, account, &id).await), (409, "not_retryable"));
    }
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.balance(account).await, (0, 20));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_account_is_not_there() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(10).await, bench.account(100).await);
    let old = failed(&bench, account).await;
    let before = books(&bench).await;
    let unknown = Uuid::new_v4().to_string();
    for id in [old.as_str(), unknown.as_str(), "7", "not-an-id", &old.to_uppercase()] {
        assert_eq!(code(&retry(&bench, other, id).await), (404, "not_found"), "{id}");
    }
    assert_eq!(books(&bench).await, before);

    // A service that may operate may retry whosever it is; its account pays.
    let backend = bench.service_token("backend", &["enqueue", "grant"]).await;
    let operator = bench.service_token("operator", &["operate"]).await;
    let path = format!("/api/jobs/{old}/retry");
    assert_eq!(code(&serve(&bench, &backend, &path, None).await), (403, "forbidden"));
    let answer = serve(&bench, &operator, &path, None).await;
    id(&answer);
    assert_eq!(answer.body["account_id"], account.to_string());
    assert_eq!((bench.balance(account).await, bench.balance(other).await), ((0, 10), (100, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_bought_on_the_terms_of_now() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 5").await;
    let account = bench.account(100).await;
    let steps = json!({ "script": [{ "do": "final" }] });
    let mut old = vec![failed(&bench, account).await];
    for retry in [json!({ "max_attempts": 4, "jitter": 0.25 }), json!({ "max_attempts": 1 })] {
        let wanted = json!({ "kind": "test.scripted", "input": steps, "retry": retry });
        old.push(id(&bench.post(account, wanted, None).await));
    }
    tick(&bench).await;

    // What was within the bounds then is within those of now.
    bench
        .sql(
            "UPDATE punchcard.kinds SET max_attempts = 2, on_cancel = 'capture' WHERE name = 'test.scripted'",
        )
        .await;
    for (old, attempts) in old.iter().zip([2, 2, 1]) {
        assert_eq!(retry(&bench, account, old).await.body["max_attempts"], attempts);
    }
    let terms = "SELECT count(*) FROM punchcard.jobs j JOIN punchcard.kind_terms t ON t.id = j.terms_id
         WHERE j.retry_of IS NOT NULL AND t.on_cancel = 'capture'";
    assert_eq!(bench.count(terms).await, 3);
    let kept =
        "SELECT count(*) FROM punchcard.jobs WHERE retry_of IS NOT NULL AND retry = '{\"jitter\": 0.25}'";
    assert_eq!(bench.count(kept).await, 1);
    tick(&bench).await;
    assert_eq!(bench.balance(account).await, (100, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_retired_is_not_sold_again() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let old = failed(&bench, account).await;
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'test.scripted'").await;
    let before = books(&bench).await;
    assert_eq!(code(&retry(&bench, account, &old).await), (422, "unknown_kind"));
    assert_eq!(books(&bench).await, before);
    bench.sql("UPDATE punchcard.kinds SET retired_at = NULL WHERE name = 'test.scripted'").await;
    id(&retry(&bench, account, &old).await);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancel_or_a_retry_does_not_take_is_not_passed_over() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let id = bench.post(account, json!({ "kind": "unserved" }), None).await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let later = json!({ "run_at": "2999-01-01T00:00:00Z" });
    for verb in ["cancel", "retry"] {
        let path = format!("/api/jobs/{id}/{verb}");
        let refused = ask(&bench, account, "POST", &path, Some(later.clone())).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (400, &json!("unknown_field")),
            "{}",
            refused.body
        );
        let done = ask(&bench, account, "POST", &path, Some(json!({}))).await;
        assert!(matches!(done.status, 200 | 202), "{}", done.body);
    }
}
