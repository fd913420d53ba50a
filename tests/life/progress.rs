//! Progress, as a handler says it and a caller sees it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::tick;
use crate::support::{Bench, now};

/// The job's progress, once there is some; what it came to without it, if that never came.
async fn seen(bench: &Bench, account: Uuid, id: &str) -> Value {
    for _ in 0..200 {
        let job = bench.job(account, id).await;
        if !job["progress"].is_null() {
            assert_eq!(job["status"], "running");
            return job["progress"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no progress within ten seconds: {}", bench.job(account, id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_shows_how_far_it_is_and_a_final_one_does_not() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let steps = json!([{ "do": "progress", "percent": 40, "message": "drawing", "seconds": 5 }]);
    let id = bench.script(account, steps).await;
    assert_eq!(bench.job(account, &id).await["progress"], Value::Null, "nothing was said yet");
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    let progress = seen(&bench, account, &id).await;
    assert_eq!((&progress["percent"], &progress["message"]), (&json!(40), &json!("drawing")));
    let at = time::OffsetDateTime::parse(
        progress["updated_at"].as_str().unwrap(),
        &time::format_description::well_known::Rfc3339,
    );
    assert!(at.unwrap().unix_timestamp().abs_diff(now().cast_signed()) < 60);
    let listed = bench.get(account, "/api/jobs?status=running").await.body;
    assert_eq!(listed["data"][0]["progress"], progress, "a list shows it too");
    assert_eq!(bench.balance(account).await, (0, 10));
    run.wait().await.unwrap();
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["progress"]), (&json!("succeeded"), &Value::Null));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_cut_at_200_characters_and_a_percentage_at_100() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let input =
        json!({ "script": [{ "do": "progress", "percent": 250, "message": "ä".repeat(300), "seconds": 4 }] });
    let answer = bench.post(account, json!({ "kind": "test.scripted", "input": input }), None).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    let progress = seen(&bench, account, answer.body["id"].as_str().unwrap()).await;
    assert_eq!((&progress["percent"], &progress["message"]), (&json!(100), &json!("ä".repeat(200))));
    run.wait().await.unwrap();
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_tried_again_begins_anew() {
    let bench = Bench::new().await;
    bench.scripted_kind("timeout_seconds = 4").await;
    let account = bench.account(10).await;
    let far = json!({ "do": "progress", "percent": 90, "message": "nearly", "seconds": 30 });
    let id = bench.script(account, json!([far, { "do": "done", "seconds": 1 }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    assert_eq!(seen(&bench, account, &id).await["percent"], 90);
    // It is out of time, and waits for a second; then it runs without having said anything.
    let mut shown = BTreeSet::new();
    loop {
        let job = bench.job(account, &id).await;
        if job["crashes"] == 1 {
            shown.insert(job["progress"].to_string());
        }
        if job["status"] == "succeeded" {
            break;
        }
        if job["status"] == "queued" && job["crashes"] == 1 {
            tick(&bench).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(shown, ["null".to_owned()].into());
    run.wait().await.unwrap();
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_a_handler_says_the_last_of_it_is_written_every_two_seconds() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let steps = json!([{ "do": "chatter", "percent": 100, "message": "on and on", "seconds": 7 }]);
    let id = bench.script(account, steps).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    let mut written = Vec::new();
    let mut status = Value::Null;
    while status != "succeeded" {
        let job = bench.job(account, &id).await;
        let progress = job["progress"].clone();
        if !progress.is_null() && written.last() != Some(&progress) {
            written.push(progress);
        }
        status = job["status"].clone();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.wait().await.unwrap();
    // Of a hundred and one. A slow machine may take longer for them, and write one more.
    assert!((2..=6).contains(&written.len()), "{written:?}");
    let percents: Vec<i64> = written.iter().map(|said| said["percent"].as_i64().unwrap()).collect();
    assert!(percents.is_sorted() && percents[0] > 5, "the last of what was said: {percents:?}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lease_says_nothing_any_more() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    bench.rows("SELECT job_id FROM punchcard.claim(1, '{test.scripted}', false, 60, 60)").await;
    let say = |token: i64| {
        format!(
            "SELECT job_id FROM punchcard.check_in('{{{id}}}', '{{{token}}}', '{{50}}', '{{half}}', '{{NULL}}')"
        )
    };
    bench.rows(&say(2)).await;
    assert_eq!(bench.job(account, &id).await["progress"], Value::Null, "not its token");
    bench.rows(&say(1)).await;
    assert_eq!(bench.job(account, &id).await["progress"]["message"], "half");
    bench.wait(120).await;
    assert_eq!(tick(&bench).await["succeeded"], 1);
    bench.rows(&say(1)).await;
    assert_eq!(bench.job(account, &id).await["progress"], Value::Null);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}
