//! `GET /api/jobs` and `GET /api/jobs/{id}`.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Bench, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_somebody_else_is_not_there() {
    let bench = Bench::new().await;
    let (one, other) = (bench.account(10).await, bench.account(10).await);
    let job = bench.post(one, json!({ "kind": "echo.http" }), None).await;
    let path = format!("/api/jobs/{}", job.body["id"].as_str().unwrap());
    assert_eq!(bench.get(one, &path).await.body["id"], job.body["id"]);
    let (foreign, unknown) =
        (bench.get(other, &path).await, bench.get(other, &format!("/api/jobs/{}", Uuid::new_v4())).await);
    assert_eq!((foreign.status, unknown.status), (404, 404));
    for field in ["type", "title", "code", "detail"] {
        assert_eq!(foreign.body[field], unknown.body[field], "a foreign job is told from none by nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_have_one_form_only() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let job = bench.post(account, json!({ "kind": "echo.http" }), None).await;
    let id = job.body["id"].as_str().unwrap().to_owned();
    let forms = [
        "abc".into(),
        id.to_uppercase(),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        id.replace('-', ""),
        "00000000-0000-0000-0000-000000000000".into(),
        "..%2f".into(),
    ];
    for form in forms {
        assert_eq!(bench.get(account, &format!("/api/jobs/{form}")).await.status, 404, "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_job_once_newest_first() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(100).await, bench.account(100).await);
    bench.enqueue(account, "qr.svg", 25).await;
    bench.enqueue(other, "qr.svg", 3).await;
    let (mut seen, mut path, mut cursor) = (Vec::new(), "/api/jobs?limit=10".to_owned(), json!(null));
    for _ in 0..3 {
        let page = bench.get(account, &path).await;
        seen.extend(
            page.body["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()),
        );
        cursor = page.body["next_cursor"].clone();
        if let Some(cursor) = cursor.as_str() {
            path = format!("/api/jobs?limit=10&cursor={cursor}");
        }
    }
    assert_eq!((seen.len(), cursor), (25, json!(null)));
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!(seen, sorted);
    let foreign =
        bench.get(other, "/api/jobs?limit=1").await.body["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(bench.get(account, &format!("/api/jobs?cursor={foreign}")).await.status, 400);
    for query in [
        "limit=-1",
        "limit=0",
        "limit=1000000000",
        "limit=abc",
        "cursor=x",
        "status=done",
        "order=up",
        "kind=A",
    ] {
        assert_eq!(bench.get(account, &format!("/api/jobs?{query}")).await.status, 400, "{query}");
    }
    let queued = bench.get(account, "/api/jobs?status=queued&kind=qr.svg&limit=100").await;
    assert_eq!(queued.body["data"].as_array().unwrap().len(), 25);
    assert_eq!(bench.get(account, "/api/jobs?status=failed").await.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_are_not_there_say_so() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    assert_eq!(bench.get(account, "/api/nothing").await.status, 404);
    assert_eq!(bench.get(account, "/").await.status, 404);
    let refused = bench.get(account, "/api/credits/grants").await;
    assert_eq!((refused.status, &refused.headers["allow"]), (405, &json!("POST")));
    assert_eq!(bench.request(event("PUT", "/api/jobs", &[], None)).await.headers["allow"], "POST, GET");
    assert_eq!(bench.get(account, "/api/health").await.body["status"], "ok");
}
