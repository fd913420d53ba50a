//! Who goes before others: as far as the kind allows, so that no caller puts their jobs before everybody's.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::{punchcard, refused, said},
    support::{Answer, Bench, bearer, event},
};

async fn bound(bench: &Bench, kind: &str, most: i16) {
    bench.sql(&format!("UPDATE punchcard.kinds SET max_priority = {most} WHERE name = '{kind}'")).await;
}

async fn buy(bench: &Bench, account: Uuid, kind: &str, priority: Option<i16>) -> Answer {
    let mut job = json!({ "kind": kind, "input": { "text": "t" } });
    if let Some(priority) = priority {
        job["priority"] = json!(priority);
    }
    bench.post(account, job, None).await
}

async fn batch(bench: &Bench, account: Uuid, jobs: Value) -> Answer {
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let body = json!({ "jobs": jobs }).to_string();
    bench.request(event("POST", "/api/jobs:batch", &headers, Some(&body))).await
}

/// The priority of a job as its owner sees it.
async fn shown(bench: &Bench, account: Uuid, id: &Value) -> Value {
    bench.job(account, id.as_str().unwrap()).await["priority"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_before_others_only_as_far_as_its_kind_allows() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    for (most, allowed, refused) in
        [(0, vec![-10, 0], vec![1, 10]), (5, vec![5, -3], vec![6]), (-4, vec![-4], vec![-3, 1])]
    {
        bound(&bench, "free", most).await;
        for priority in allowed {
            let bought = buy(&bench, account, "free", Some(priority)).await;
            assert_eq!((bought.status, &bought.body["priority"]), (202, &json!(priority)), "{}", bought.body);
            assert_eq!(shown(&bench, account, &bought.body["id"]).await, priority);
        }
        for priority in refused {
            let answer = buy(&bench, account, "free", Some(priority)).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (422, &json!("invalid_priority")),
                "{priority}"
            );
            let detail = format!("A priority of this kind is from -10 to {most}.");
            assert_eq!(answer.body["detail"], detail);
            let jobs = json!([{ "kind": "free" }, { "kind": "qr.svg", "priority": 10 }, { "kind": "free", "priority": priority }]);
            let answer = batch(&bench, account, jobs).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (422, &json!("invalid_priority")),
                "{priority}"
            );
            let detail = format!("Job 3 of the batch: a priority of this kind is from -10 to {most}.");
            assert_eq!(answer.body["detail"], detail);
        }
    }
    // Whoever says nothing of it, or 0, is no exception, and is not refused.
    for priority in [None, Some(0)] {
        let bought = buy(&bench, account, "free", priority).await;
        assert_eq!((bought.status, &bought.body["priority"]), (202, &json!(-4)), "{}", bought.body);
        assert_eq!(shown(&bench, account, &bought.body["id"]).await, -4);
    }
    let bought =
        batch(&bench, account, json!([{ "kind": "free" }, { "kind": "free", "priority": -9 }])).await;
    let ids = bought.body["jobs"].as_array().unwrap();
    let lowered = [shown(&bench, account, &ids[0]["id"]).await, shown(&bench, account, &ids[1]["id"]).await];
    assert_eq!(lowered, [-4, -9]);
    assert_eq!(bench.balance(account).await, (20, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_credits_goes_before_nobody_who_has() {
    let bench = Bench::new().await;
    bench.sql("UPDATE punchcard.kinds SET max_priority = DEFAULT").await;
    let (poor, buyer) = (bench.account(0).await, bench.account(1).await);
    let bought = buy(&bench, buyer, "qr.svg", None).await;
    assert_eq!(bought.status, 202, "{}", bought.body);
    let first = "-- unless a kind says so, nobody is put before anybody
        SELECT max(priority) <= (SELECT n.priority FROM punchcard.jobs_now n WHERE n.account_id = ";
    for _ in 0..3 {
        assert_eq!(buy(&bench, poor, "free", Some(10)).await.status, 422);
        let jobs = json!([{ "kind": "free", "priority": 10 }]);
        assert_eq!(batch(&bench, poor, jobs).await.status, 422);
        bench.enqueue(poor, "free", 1).await;
    }
    let enqueue = format!("SELECT punchcard.enqueue('{poor}', 'free', p_priority => 10)");
    let error = bench.admin.query_typed(&enqueue, &[]).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("PT422"));
    let none_before = format!("{first}'{buyer}') FROM punchcard.jobs_now");
    assert!(bench.rows(&none_before).await[0].get::<_, bool>(0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bought_higher_than_is_allowed_now_is_kept_replayed_and_retried_lower() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    let service = bench.service_token("operator", &["operate"]).await;
    let job = json!({ "kind": "unserved", "priority": 7 });
    let bought = bench.post(account, job.clone(), Some("key")).await;
    let failed = bench.post(account, job.clone(), None).await;
    assert_eq!((bought.status, failed.status), (202, 202), "{}", failed.body);
    let canceled = format!("/api/jobs/{}/cancel", bought.body["id"].as_str().unwrap());
    bench.sql("UPDATE punchcard.queue SET expires_at = now() WHERE job_id = (SELECT max(job_id::text)::uuid FROM punchcard.queue)").await;
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(bench.job(account, failed.body["id"].as_str().unwrap()).await["status"], "failed");
    bound(&bench, "unserved", 2).await;
    assert_eq!(bench.post(account, job.clone(), None).await.status, 422);
    let replayed = bench.post(account, job, Some("key")).await;
    assert_eq!((replayed.status, &replayed.body["priority"]), (200, &json!(7)), "{}", replayed.body);
    assert_eq!(bench.act(account, &canceled).await.status, 200);
    let retried = bench.act(account, &canceled.replace("/cancel", "/retry")).await;
    assert_eq!((retried.status, &retried.body["priority"]), (202, &json!(2)), "{}", retried.body);
    let token = format!("Bearer {service}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let redriven =
        bench.request(event("POST", "/api/jobs:retry", &headers, Some(r#"{"kind":"unserved"}"#))).await;
    assert_eq!((redriven.status, &redriven.body["matched"]), (200, &json!(1)), "{}", redriven.body);
    assert_eq!(shown(&bench, account, &redriven.body["data"][0]["retried_as"]).await, 2);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_kinds_says_how_far() {
    let bench = Bench::new().await;
    let account = bench.account(5).await;
    let file = std::env::temp_dir().join(format!("kinds-{}.toml", Uuid::new_v4()));
    let path = file.to_str().unwrap();
    let apply = |kind: &str| {
        std::fs::write(&file, format!("[kinds.\"qr.svg\"]\nprice = 1\n{kind}")).unwrap();
        punchcard(&bench, &["apply", path])
    };
    assert!(said(&apply("max_priority = 3")).contains("changed: qr.svg"));
    assert_eq!(buy(&bench, account, "qr.svg", Some(3)).await.status, 202);
    assert_eq!(buy(&bench, account, "qr.svg", Some(4)).await.status, 422);
    let refused = refused(&apply("max_priority = 11"));
    assert!(refused.contains("max_priority") && refused.contains("from -10 to 10"), "{refused}");
    assert!(said(&apply("max_priority = 3")).contains("nothing to change"));
    said(&apply(""));
    assert_eq!(
        buy(&bench, account, "qr.svg", Some(1)).await.status,
        422,
        "nobody goes before others unless it says so"
    );
    std::fs::remove_file(file).unwrap();
    bench.assert_audit_is_clean().await;
}
