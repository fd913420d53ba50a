//! `POST /api/jobs:validate`: everything is checked, and nothing is bought. And `GET /api/kinds`.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Bench, bearer, event};

const VALIDATE: &str = "/api/jobs:validate";

async fn ask(bench: &Bench, account: Uuid, path: &str, body: &Value, key: Option<&str>) -> Answer {
    let token = bearer(account);
    let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    bench.request(event("POST", path, &headers, Some(&body.to_string()))).await
}

/// All that a purchase writes.
async fn books(bench: &Bench) -> String {
    bench
        .rows(
            "SELECT (SELECT json_agg(a ORDER BY a.id, a.share) FROM punchcard.accounts a)::text
                 || (SELECT count(*) FROM punchcard.jobs) || ' ' || (SELECT count(*) FROM punchcard.queue) || ' '
                 || (SELECT count(*) FROM punchcard.labels) || ' ' || (SELECT count(*) FROM punchcard.idempotency_keys)",
        )
        .await[0]
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_validated_as_it_would_be_made_and_is_not() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let spread = bench.account(10).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{spread}', 4)")).await;
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" }, "tags": ["a"] });
    let one = json!({ "jobs": [job] });
    let batch = json!({ "jobs": [job, job, { "kind": "free" }] });
    let before = books(&bench).await;
    for (account, body, price) in
        [(account, &one, 1), (spread, &one, 1), (account, &batch, 2), (spread, &batch, 2)]
    {
        for key in [None, Some("key")] {
            let answer = ask(&bench, account, VALIDATE, body, key).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.body, json!({ "price": price, "available_after": 10 - price }));
        }
    }
    for (jobs, status, code) in [
        (json!([{ "kind": "no.such" }]), 422, "unknown_kind"),
        (json!([{ "kind": "free" }, { "kind": "free", "tags": ["a b"] }]), 422, "invalid_tags"),
        (json!([{ "kind": "qr.svg", "priority": 11 }]), 422, "invalid_priority"),
        (json!(vec![job.clone(); 11]), 402, "insufficient_credits"),
        (json!([]), 422, "invalid_batch"),
        (json!(5), 400, "invalid_field"),
    ] {
        let body = json!({ "jobs": jobs });
        let only = ask(&bench, account, VALIDATE, &body, None).await;
        assert_eq!((only.status, &only.body["code"]), (status, &json!(code)), "{}", only.body);
        let real = ask(&bench, account, "/api/jobs:batch", &body, None).await;
        assert_eq!(
            (real.status, &real.body["errors"]),
            (only.status, &only.body["errors"]),
            "as the real one"
        );
    }
    let nobody = ask(&bench, Uuid::new_v4(), VALIDATE, &one, None).await;
    assert_eq!((nobody.status, &nobody.body["code"]), (402, &json!("insufficient_credits")));
    assert_eq!(books(&bench).await, before);
    let bought = ask(&bench, account, "/api/jobs:batch", &batch, Some("key")).await;
    assert_eq!(bought.status, 202, "no key was used up: {}", bought.body);
    assert_eq!(bench.balance(account).await, (8, 2));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_beside_validations_are_charged_once_each() {
    let bench = Bench::new().await;
    let account = bench.account(20).await;
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    let batch = json!({ "jobs": [job] });
    let asked = (0..40).map(|number| match number % 2 {
        0 => ask(&bench, account, "/api/jobs", &job, None),
        _ => ask(&bench, account, VALIDATE, &batch, None),
    });
    for (number, answer) in futures_util::future::join_all(asked).await.iter().enumerate() {
        let fits = if number % 2 == 0 { answer.status == 202 } else { matches!(answer.status, 200 | 402) };
        assert!(fits, "{}", answer.body);
    }
    assert_eq!(bench.balance(account).await, (0, 20));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_is_listed_with_its_price_and_terms() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    bench
        .sql(
            "INSERT INTO punchcard.kinds (name, price, metered, on_cancel, on_input_error, max_priority)
             VALUES ('aa', 7, true, 'capture', 'capture', 3), ('gone', 1, false, 'release', 'release', 0);
             UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'gone'",
        )
        .await;
    let all = bench.get(account, "/api/kinds").await.body;
    assert_eq!(
        all["data"][0],
        json!({
            "name": "aa", "price": 7, "metered": true, "on_cancel": "capture", "on_input_error": "capture", "max_priority": 3,
            "max_attempts": 3, "timeout_seconds": 30, "life_seconds": 604_800
        })
    );
    let names = |page: &Value| -> Vec<String> {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| kind["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected = names(&all);
    assert!(expected.is_sorted() && !expected.contains(&"gone".to_owned()), "{expected:?}");
    let (mut seen, mut path) = (Vec::new(), "/api/kinds?limit=2".to_owned());
    loop {
        let page = bench.get(account, &path).await.body;
        seen.extend(names(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/api/kinds?limit=2&cursor={next}");
    }
    assert_eq!(seen, expected);
    assert_eq!(bench.get(account, "/api/kinds?cursor=x").await.status, 400);
    assert_eq!(bench.request(event("GET", "/api/kinds", &[], None)).await.status, 401);
}
