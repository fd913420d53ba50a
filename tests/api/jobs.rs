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
    for query in ["limit=-1", "limit=0", "limit=abc", "cursor=x", "status=done", "order=up", "kind=A"] {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_of_several_statuses_within_a_time_and_light_unless_asked() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    // Of six: one fails, one succeeds, one is canceled, one runs, two are queued; a day apart, and the newest first.
    bench
        .sql(&format!(
            "SET session_replication_role = replica;
             INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, expires_at, created_at,
                                         terms_id, share, priority, max_attempts, kind, input)
             SELECT '{account}', punchcard.uuid_v7(now() - n * interval '1 day'), 0, 1000 + n, 0, 0, now() + interval '1 day',
                    now() - n * interval '1 day', 1, 0, 0, 3, 'free', '{{\"secret\":1}}'
             FROM generate_series(1, 6) n;
             INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured, status,
                                             attempt, crashes, lease_token, finished_at, output, error)
             SELECT j.id, '{account}', 0, 2000 + j.entry, 0, 0, 0, (ARRAY['failed', 'succeeded', 'canceled'])[j.entry - 1000]::punchcard.final_status,
                    1, 0, 1, now(), CASE j.entry WHEN 1002 THEN '{{\"made\":1}}'::json END,
                    CASE j.entry WHEN 1001 THEN '{{\"code\":\"c\",\"message\":\"m\",\"attempt\":1}}'::json END
             FROM punchcard.jobs j WHERE j.entry < 1004;
             INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, bytes, priority, max_attempts, run_at,
                                          expires_at, lease_expires_at)
             SELECT j.id, '{account}', 0, 'free', 0, 1, 2, 0, 3, now(), now() + interval '1 day',
                    CASE j.entry WHEN 1004 THEN now() + interval '1 day' END
             FROM punchcard.jobs j WHERE j.entry > 1003;
             UPDATE punchcard.accounts SET unfinished_jobs = 3 WHERE id = '{account}';
             RESET session_replication_role"
        ))
        .await;
    let ids: Vec<String> = bench
        .rows("SELECT id::text FROM punchcard.jobs ORDER BY id DESC")
        .await
        .iter()
        .map(|row| row.get(0))
        .collect();
    let at: Vec<String> = bench
        .rows("SELECT to_char((now() - n * interval '1 day' - interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM generate_series(0, 6) n")
        .await
        .iter()
        .map(|row| row.get(0))
        .collect();
    let found = async |query: &str| {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bench.get(account, &format!("/api/jobs?{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{query}: {}", page.body);
            for job in page.body["data"].as_array().unwrap() {
                seen.push(ids.iter().position(|id| job["id"] == json!(id)).unwrap());
            }
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return seen,
            }
        }
    };
    for limit in [1, 2, 100] {
        for (query, expected) in [
            ("".to_owned(), vec![0, 1, 2, 3, 4, 5]),
            ("&status=failed&status=canceled".to_owned(), vec![0, 2]),
            ("&status=failed,canceled,queued".to_owned(), vec![0, 2, 4, 5]),
            ("&status=succeeded&status=running&kind=free".to_owned(), vec![1, 3]),
            ("&status=queued,running,queued,queued&status=succeeded".to_owned(), vec![1, 3, 4, 5]),
            (format!("&created_after={}", at[2]), vec![0, 1]),
            (format!("&created_before={}", at[2]), vec![2, 3, 4, 5]),
            (format!("&created_after={}&created_before={}", at[5], at[1]), vec![1, 2, 3, 4]),
            (format!("&created_after={}&created_before={}&status=failed,canceled", at[5], at[1]), vec![2]),
            (format!("&created_after={}&created_before={}&kind=free", at[4], at[3]), vec![3]),
            (format!("&created_after={}", at[0]), vec![]),
        ] {
            assert_eq!(found(&format!("limit={limit}{query}")).await, expected, "limit={limit}{query}");
        }
    }
    let shown = async |query: &str| {
        bench.get(account, &format!("/api/jobs?status=succeeded{query}")).await.body["data"][0].clone()
    };
    let light = shown("").await;
    assert_eq!((light.get("input"), light.get("output")), (None, None), "{light}");
    let input = shown("&include=input").await;
    assert_eq!((&input["input"], input.get("output")), (&json!({ "secret": 1 }), None));
    for query in ["&include=input,output", "&include=output&include=input"] {
        let whole = shown(query).await;
        assert_eq!((&whole["input"], &whole["output"]), (&json!({ "secret": 1 }), &json!({ "made": 1 })));
    }
    assert_eq!(
        shown("&include=output&status=queued&status=failed").await["output"],
        json!(null),
        "it has none"
    );
    for (query, code, parameter) in [
        ("status=failed,done", "invalid_status", "status"),
        ("status=", "invalid_status", "status"),
        (&format!("status={}bogus", "failed,".repeat(20)), "too_many_filters", "status"),
        (&format!("{}include=output", "include=input&".repeat(20)), "too_many_filters", "include"),
        ("include=secrets", "invalid_include", "include"),
        ("created_after=yesterday", "invalid_created_after", "created_after"),
        ("created_before=2026-11-24", "invalid_created_before", "created_before"),
        ("tag=a", "unknown_parameter", "tag"),
        ("limit=0", "invalid_limit", "limit"),
        ("cursor=x", "invalid_cursor", "cursor"),
        ("kind=A", "invalid_kind", "kind"),
    ] {
        let refused = bench.get(account, &format!("/api/jobs?{query}")).await;
        assert_eq!((refused.status, &refused.body["code"]), (400, &json!(code)), "{query}");
        let error = &refused.body["errors"][0];
        assert_eq!(
            (&error["code"], &error["parameter"]),
            (&json!(code), &json!(parameter)),
            "{query}: {error}"
        );
    }
    let allowed = bench.get(account, "/api/jobs?status=done").await.body["errors"][0]["allowed"].clone();
    assert_eq!(allowed, json!(["queued", "running", "succeeded", "failed", "canceled"]));
}
