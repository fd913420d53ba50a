//! The transitions of a job: told once, in their order, by numbers that stay.

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{assert_refused, code, tick, until_running};
use crate::support::{Bench, event};

/// What happened after the event of that number.
async fn events_after(bench: &Bench, account: Uuid, id: &str, after: i64) -> Vec<Value> {
    let answer = bench.get(account, &format!("/api/jobs/{id}/events?limit=100&after={after}")).await;
    assert_eq!((answer.status, &answer.body["next_cursor"]), (200, &Value::Null), "{}", answer.body);
    answer.body["data"].as_array().expect("events").clone()
}

async fn events(bench: &Bench, account: Uuid, id: &str) -> Vec<Value> {
    let all = events_after(bench, account, id, 0).await;
    let answer = bench.get(account, &format!("/api/jobs/{id}/events")).await;
    assert_eq!(answer.body["data"], json!(all), "after none");
    all
}

/// number, status, attempt, why it was queued again, what went wrong.
fn told(events: &[Value]) -> Vec<(i64, &str, i64, &str, &str)> {
    fn tell(event: &Value) -> (i64, &str, i64, &str, &str) {
        let whole = |field| event[field].as_i64().expect("a number");
        let status = event["type"].as_str().and_then(|name| name.strip_prefix("job.")).expect("a type");
        let reason = event["reason"].as_str().unwrap_or_default();
        let code = event["error"]["code"].as_str().unwrap_or_default();
        (whole("number"), status, whole("attempt"), reason, code)
    }
    events.iter().map(tell).collect()
}

fn assert_in_order(events: &[Value]) {
    let times: Vec<&str> = events.iter().map(|event| event["created_at"].as_str().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_is_told_by_a_number_that_stays() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let steps =
        json!([{ "do": "err" }, { "do": "unavailable" }, { "do": "abort" }, { "do": "done", "seconds": 1 }]);
    let id = bench.script(account, steps).await;
    let expected = [
        (1, "queued", 0, "", ""),
        (2, "running", 1, "", ""),
        (3, "queued", 1, "retry", "handler_error"),
        (4, "running", 2, "", ""),
        (5, "queued", 2, "snooze", "unavailable"),
        (6, "running", 2, "", ""),
        (7, "queued", 2, "crash", "lease_expired"),
        (8, "running", 2, "", ""),
        (9, "succeeded", 2, "", ""),
    ];
    let mut seen: Vec<Value> = Vec::new();
    let mut ends = async |so_far: usize| {
        let all = events(&bench, account, &id).await;
        assert_eq!(told(&all), expected[..so_far]);
        assert_eq!(all[..seen.len()], seen, "what was told stays as it was");
        let last = seen.last().map_or(0, |event| event["number"].as_i64().unwrap());
        assert_eq!(events_after(&bench, account, &id, last).await, all[seen.len()..]);
        seen = all;
    };
    ends(1).await;
    assert_eq!(tick(&bench).await["retried"], 1);
    ends(3).await;
    bench.wait(60).await;
    assert_eq!(tick(&bench).await["snoozed"], 1);
    ends(5).await;
    bench.wait(60).await;
    bench.scripted_worker().invoke(&json!({})).await.expect_err("killed in the middle");
    ends(6).await;
    bench.sql("UPDATE punchcard.queue SET lease_expires_at = now()").await;
    bench.sql("SELECT punchcard.rescue(10)").await;
    ends(7).await;
    assert_eq!(bench.balance(account).await, (0, 10), "held all the while");
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &id).await;
    ends(8).await;
    assert_eq!(run.wait().await.unwrap()["succeeded"], 1);
    ends(9).await;

    assert_in_order(&seen);
    let job = bench.job(account, &id).await;
    assert_eq!(seen[0]["created_at"], job["created_at"]);
    // The first of two looks at the clock.
    assert!(job["started_at"].as_str() <= seen[1]["created_at"].as_str(), "{}", job["started_at"]);
    assert_eq!(seen[8]["created_at"], job["finished_at"]);
    assert_eq!(
        (&seen[2]["error"]["message"], &seen[8]["error"]),
        (&json!("as the test wants it"), &Value::Null)
    );
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_run_has_a_number_of_its_own() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 2").await;
    let account = bench.account(60).await;
    let cancel = async |id: &str, status: u64| {
        assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.status, status);
    };
    let never_run = bench.script(account, json!([{ "do": "done" }])).await;
    cancel(&never_run, 200).await;
    let tried = bench.script(account, json!([{ "do": "err" }])).await;
    let rejected = bench.script(account, json!([{ "do": "reject" }])).await;
    let waiting = bench.script(account, json!([{ "do": "err", "retry_after": 3600 }])).await;
    let expired = bench.script(account, json!([{ "do": "err", "retry_after": 3600 }])).await;
    tick(&bench).await;
    cancel(&waiting, 200).await;
    bench.wait(60).await;
    tick(&bench).await;
    let stopped = bench.script(account, json!([{ "do": "stop_then_err" }])).await;
    let worker = bench.scripted_worker();
    let run = worker.start_invoke(&json!({}));
    until_running(&bench, account, &stopped).await;
    cancel(&stopped, 202).await;
    run.wait().await.unwrap();
    bench.sql("UPDATE punchcard.queue SET expires_at = now()").await;
    assert_eq!(tick(&bench).await["lapsed"], 1);

    let bought = (1, "queued", 0, "", "");
    let run = |number, attempt| (number, "running", attempt, "", "");
    let erred = (3, "queued", 1, "retry", "handler_error");
    for (id, expected) in [
        (&never_run, vec![bought, (2, "canceled", 0, "", "")]),
        (&tried, vec![bought, run(2, 1), erred, run(4, 2), (5, "failed", 2, "", "handler_error")]),
        (&rejected, vec![bought, run(2, 1), (3, "failed", 1, "", "invalid_input")]),
        (&waiting, vec![bought, run(2, 1), erred, (4, "canceled", 1, "", "")]),
        (&expired, vec![bought, run(2, 1), erred, (4, "failed", 1, "", "expired")]),
        (&stopped, vec![bought, run(2, 1), (3, "canceled", 1, "", "")]),
    ] {
        let all = events(&bench, account, id).await;
        assert_eq!(told(&all), expected);
        assert_in_order(&all);
    }
    assert_eq!(bench.balance(account).await, (60, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_handed_back_takes_its_number_with_it() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    bench.sql("SELECT * FROM punchcard.claim(10, '{test.scripted}', false, 60, 60)").await;
    assert_eq!(told(&events_after(&bench, account, &id, 1).await), [(2, "running", 1, "", "")]);
    let back = format!(
        "SELECT * FROM punchcard.settle('{{{id}}}', '{{1}}', '{{return}}', '{{0}}', '{{NULL}}', '{{NULL}}')"
    );
    bench.sql(&back).await;
    assert_eq!(told(&events(&bench, account, &id).await), [(1, "queued", 0, "", "")], "it never began");
    assert_eq!(tick(&bench).await["succeeded"], 1);
    let expected = [(4, "running", 1, "", ""), (5, "succeeded", 1, "", "")];
    assert_eq!(told(&events_after(&bench, account, &id, 2).await), expected, "no number is used twice");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_life_is_told_in_pages() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "unavailable" }])).await;
    let put_off = "DO $$
        BEGIN
            FOR run IN 1 .. 75 LOOP
                UPDATE punchcard.queue SET run_at = now();
                PERFORM punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), '{snooze}', '{1}', '{NULL}', '{NULL}')
                FROM punchcard.claim(1, '{test.scripted}', false, 60, 60) c;
            END LOOP;
        END $$";
    bench.sql(put_off).await;
    let mut pages = Vec::new();
    let mut after = json!("");
    while let Some(cursor) = after.as_str() {
        let cursor = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
        let page = bench.get(account, &format!("/api/jobs/{id}/events?limit=100{cursor}")).await.body;
        pages.push(page["data"].as_array().unwrap().clone());
        after = page["next_cursor"].clone();
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 51]);
    let numbers: Vec<i64> = told(&pages.concat()).iter().map(|event| event.0).collect();
    assert_eq!(numbers, (1..=151).collect::<Vec<_>>());
    assert_eq!(events_after(&bench, account, &id, 151).await, Vec::<Value>::new(), "nothing yet");
    assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.status, 200);
    assert_eq!(told(&events_after(&bench, account, &id, 151).await), [(152, "canceled", 0, "", "")]);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_their_owners_and_those_who_may_look() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    let path = format!("/api/jobs/{id}/events");
    for path in [path.clone(), format!("{path}?after=1"), format!("{path}?after=7")] {
        assert_refused(&bench.get(other, &path).await, 404, "not_found");
        assert_eq!(bench.get(account, &path).await.status, 200);
    }
    for id in [Uuid::new_v4().to_string().as_str(), "7"] {
        assert_refused(&bench.get(account, &format!("/api/jobs/{id}/events")).await, 404, "not_found");
    }
    for after in ["", "x", "-1", "+1", "1.5", "1,2", "9223372036854775808"] {
        assert_refused(&bench.get(account, &format!("{path}?after={after}")).await, 400, "invalid_after");
    }
    assert_refused(&bench.get(account, &format!("{path}?before=1")).await, 400, "unknown_parameter");
    assert_eq!(code(&bench.act(account, &path).await), (405, "method_not_allowed"));
    assert_eq!(bench.request(event("GET", &path, &[], None)).await.status, 401);
    let operator = bench.service_token("a", &["operate"]).await;
    let backend = bench.service_token("b", &["enqueue"]).await;
    let granter = bench.service_token("c", &["grant"]).await;
    for (token, status) in [(&operator, 200), (&backend, 200), (&granter, 403)] {
        let bearer = format!("Bearer {token}");
        let answer = bench.request(event("GET", &path, &[("authorization", &bearer)], None)).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    tick(&bench).await;
    assert_eq!(events(&bench, account, &id).await.len(), 3);
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}
