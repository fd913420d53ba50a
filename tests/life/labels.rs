//! Metadata and tags, and finding jobs by them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::{books, code};
use crate::support::{Answer, Bench, bearer, event};

async fn batch(bench: &Bench, account: Uuid, jobs: Value) -> Answer {
    let token = bearer(account);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    bench
        .request(event("POST", "/api/jobs:batch", &headers, Some(&json!({ "jobs": jobs }).to_string())))
        .await
}

/// Buys a free job with these labels; answers its id.
async fn buy(bench: &Bench, account: Uuid, kind: &str, tags: Value, metadata: Value) -> String {
    let wanted = json!({ "kind": kind, "tags": tags, "metadata": metadata });
    let answer = bench.post(account, wanted, None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// The ids of a page, and where the next one begins.
async fn page(bench: &Bench, account: Uuid, query: &str) -> (Vec<String>, Option<String>) {
    let answer = bench.get(account, &format!("/api/jobs?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    let ids =
        answer.body["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
    (ids.collect(), answer.body["next_cursor"].as_str().map(str::to_owned))
}

async fn found(bench: &Bench, account: Uuid, query: &str) -> Vec<String> {
    page(bench, account, query).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_kept_and_told_wherever_the_job_is() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let (metadata, tags) =
        (json!({ "order": "7", "note": "ünï\"=, code", "empty": "" }), json!(["B", "a", "a:b/c"]));
    let wanted = json!({ "kind": "qr.svg", "metadata": metadata, "tags": ["a:b/c", "B", "a", "B"] });
    let answer = bench.post(account, wanted, None).await;
    assert_eq!(answer.status, 202);
    assert_eq!((&answer.body["metadata"], &answer.body["tags"]), (&metadata, &tags), "each tag once");
    let id = answer.body["id"].as_str().unwrap();
    bench.poller().invoke(&json!({})).await.unwrap();
    let job = bench.job(account, id).await;
    assert_eq!((&job["status"], &job["metadata"], &job["tags"]), (&json!("failed"), &metadata, &tags));
    let listed = bench.get(account, "/api/jobs?include=input,output").await.body;
    assert_eq!(listed["data"][0], job);

    let plain = bench.post(account, json!({ "kind": "qr.svg" }), None).await;
    assert_eq!((&plain.body["metadata"], &plain.body["tags"]), (&json!({}), &json!([])));
    let jobs = json!([
        { "kind": "qr.svg" }, { "kind": "qr.svg", "tags": ["x", "y"] }, { "kind": "qr.svg", "metadata": { "n": "1" } }
    ]);
    let bought = batch(&bench, account, jobs).await;
    assert_eq!(bought.status, 202, "{}", bought.body);
    for (nth, (tags, metadata)) in
        [(json!([]), json!({})), (json!(["x", "y"]), json!({})), (json!([]), json!({ "n": "1" }))]
            .iter()
            .enumerate()
    {
        let job = bench.job(account, bought.body["jobs"][nth]["id"].as_str().unwrap()).await;
        assert_eq!((&job["tags"], &job["metadata"]), (tags, metadata));
    }
    assert_eq!(found(&bench, account, "label=y").await, [bought.body["jobs"][1]["id"].as_str().unwrap()]);
    assert_eq!(bench.balance(account).await, (6, 4));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_by_all_the_labels_that_are_asked_for() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    let red = buy(&bench, account, "free", json!(["red"]), json!({ "order": "7" })).await;
    let both = buy(&bench, account, "qr.svg", json!(["red", "blue"]), json!({ "order": "8" })).await;
    let blue = buy(&bench, account, "free", json!(["blue"]), json!({ "order": "7", "size": "a,b" })).await;
    buy(&bench, other, "free", json!(["red", "blue"]), json!({ "order": "7" })).await;
    let none: [&str; 0] = [];
    assert_eq!(found(&bench, account, "label=red").await, [&*both, &red], "newest first");
    assert_eq!(found(&bench, account, "label=red&label=blue").await, [&*both]);
    assert_eq!(found(&bench, account, "label=blue&label=red&label=red").await, [&*both]);
    assert_eq!(found(&bench, account, "label=order=7").await, [&*blue, &red]);
    assert_eq!(found(&bench, account, "label=order=7&label=size=a,b").await, [&*blue]);
    assert_eq!(found(&bench, account, "label=blue&label=order=7").await, [&*blue]);
    assert_eq!(found(&bench, account, "label=red&kind=qr.svg").await, [&*both]);
    for nothing in [
        "label=green",
        "label=",
        "label=red&label=",
        "label=re",
        "label=order=",
        "label=ord=7",
        "label==7",
        "label=red&label=order=9",
        "label=7",
        "label=red=",
        "label=RED",
        "label=%",
        "label=red&status=failed",
    ] {
        assert_eq!(found(&bench, account, nothing).await, none, "{nothing}");
    }
    bench.act(account, &format!("/api/jobs/{red}/cancel")).await;
    assert_eq!(found(&bench, account, "label=red&status=canceled").await, [&*red]);
    assert_eq!(found(&bench, account, "label=red&status=queued").await, [&*both]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_by_labels_comes_in_pages() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.insert(0, buy(&bench, account, "free", json!(["red"]), json!({})).await);
        buy(&bench, account, "free", json!(["blue"]), json!({ "n": n.to_string() })).await;
    }
    let (first, cursor) = page(&bench, account, "label=red&limit=2").await;
    assert_eq!(first, ids[..2]);
    let cursor = cursor.expect("there is more");
    let (second, next) = page(&bench, account, &format!("label=red&limit=2&cursor={cursor}")).await;
    assert_eq!(second, ids[2..4]);
    let (third, last) =
        page(&bench, account, &format!("label=red&limit=2&cursor={}", next.expect("one more"))).await;
    assert_eq!((third.as_slice(), last), (&ids[4..], None));
    let foreign = bench.get(other, &format!("/api/jobs?label=red&cursor={cursor}")).await;
    assert_eq!(code(&foreign), (400, "invalid_cursor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_bounds_is_refused_and_changes_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let before = books(&bench).await;
    let pairs = |count: usize| (0..count).map(|n| (n.to_string(), json!("v"))).collect::<Value>();
    let tags = |count: usize| (0..count).map(|n| json!(n.to_string())).collect::<Value>();
    for (member, value, expected) in [
        ("metadata", pairs(17), (422, "invalid_metadata")),
        ("metadata", json!({ "k": "x".repeat(513) }), (422, "invalid_metadata")),
        ("metadata", json!({ ("k".repeat(65)): "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "": "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "a b": "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "a=b": "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "a\n": "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "ä": "v" }), (422, "invalid_metadata")),
        ("metadata", json!({ "k": "\0" }), (422, "nul_character")),
        ("metadata", json!({ "k": 7 }), (400, "invalid_field")),
        ("metadata", json!({ "k": null }), (400, "invalid_field")),
        ("metadata", json!({ "k": { "l": "m" } }), (400, "invalid_field")),
        ("metadata", json!(["k"]), (400, "invalid_field")),
        ("metadata", json!("k"), (400, "invalid_field")),
        ("tags", tags(11), (422, "invalid_tags")),
        ("tags", json!(["x".repeat(65)]), (422, "invalid_tags")),
        ("tags", json!([""]), (422, "invalid_tags")),
        ("tags", json!(["a,b"]), (422, "invalid_tags")),
        ("tags", json!(["a=b"]), (422, "invalid_tags")),
        ("tags", json!(["a\n"]), (422, "invalid_tags")),
        ("tags", json!(["ä"]), (422, "invalid_tags")),
        ("tags", json!([7]), (400, "invalid_field")),
        ("tags", json!([null]), (400, "invalid_field")),
        ("tags", json!("red"), (400, "invalid_field")),
    ] {
        let wanted = json!({ "kind": "qr.svg", (member): value });
        assert_eq!(code(&bench.post(account, wanted.clone(), None).await), expected, "{wanted}");
        let second = batch(&bench, account, json!([{ "kind": "qr.svg" }, wanted])).await;
        assert_eq!(code(&second), expected, "in a batch: {wanted}");
    }
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.balance(account).await, (10, 0));

    // As much as there may be, of characters as large as there are.
    let widest: Value = (0..16).map(|n| (format!("{n:064}"), json!("🦀".repeat(512)))).collect();
    let most: Value = (0..10).map(|n| json!(format!("{n:064}"))).collect();
    let wanted = json!({ "kind": "qr.svg", "metadata": widest, "tags": most });
    let answer = bench.post(account, wanted, None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = bench.job(account, answer.body["id"].as_str().unwrap()).await;
    assert_eq!((&job["metadata"], &job["tags"]), (&widest, &most));
    let query = format!("label={:064}={}", 15, "🦀".repeat(512));
    assert_eq!(found(&bench, account, &query).await.len(), 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_filter_is_the_callers_fault() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    for (query, expected) in [
        (
            "label=a&label=b&label=c&label=d&label=e&label=f&label=g&label=h&label=i&label=j&label=k",
            (400, "too_many_filters"),
        ),
        (
            "label=a&label=b&label=c&label=d&label=e&label=f&label=g&label=h&label=i&label=j&label=k=v",
            (400, "too_many_filters"),
        ),
        ("metadata=7", (400, "unknown_parameter")),
        ("tags=red", (400, "unknown_parameter")),
        ("label=\0", (400, "invalid_filter")),
        ("label=k=\0", (400, "invalid_filter")),
        ("label=k\0=v", (400, "invalid_filter")),
    ] {
        let answer = bench.get(account, &format!("/api/jobs?{query}")).await;
        assert_eq!(code(&answer), expected, "{query:?}: {}", answer.body);
    }
    assert_eq!(
        bench
            .get(
                account,
                "/api/jobs?label=a&label=b&label=c&label=d&label=e&label=f&label=g&label=h&label=i&label=j"
            )
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_its_labels_too() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let wanted =
        |metadata: Value, tags: Value| json!({ "kind": "qr.svg", "metadata": metadata, "tags": tags });
    let first =
        bench.post(account, wanted(json!({ "a": "1", "b": "2" }), json!(["x", "y"])), Some("k")).await;
    assert_eq!(first.status, 202);
    let before = books(&bench).await;
    let same =
        bench.post(account, wanted(json!({ "b": "2", "a": "1" }), json!(["y", "x", "x"])), Some("k")).await;
    assert_eq!((same.status, &same.body), (200, &first.body), "the order does not matter");
    for other in [
        wanted(json!({ "a": "1", "b": "3" }), json!(["x", "y"])),
        wanted(json!({ "a": "1" }), json!(["x", "y"])),
        wanted(json!({ "a": "1", "b": "2" }), json!(["x"])),
        json!({ "kind": "qr.svg" }),
    ] {
        assert_eq!(code(&bench.post(account, other, Some("k")).await), (422, "idempotency_mismatch"));
    }
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.balance(account).await, (9, 1));
    // None is none, however it is said.
    assert_eq!(bench.post(account, json!({ "kind": "qr.svg" }), Some("l")).await.status, 202);
    assert_eq!(bench.post(account, wanted(json!({}), json!([])), Some("l")).await.status, 200);
    bench.assert_audit_is_clean().await;
}
