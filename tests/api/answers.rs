//! Every answer stays below what Lambda lets through: pages end early, and the list goes on. (The functions here are invoked by a
//! stand-in that refuses larger ones, as Lambda does.)

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::{punchcard, said},
    support::{Bench, bearer, event},
};

/// Lambda's, of the answer as JSON.
const MOST_BYTES: usize = 6 * 1024 * 1024;

/// The entries of a whole list, and in how many pages it comes; the next one is asked for by `cursor`.
async fn pages(bench: &Bench, account: Uuid, path: &str, cursor: &str) -> (Vec<Value>, usize) {
    let (mut entries, mut count, mut next) = (Vec::new(), 0, path.to_owned());
    loop {
        let event = event("GET", &next, &[("authorization", &bearer(account))], None);
        let answer = bench.api.invoke(&event).await.unwrap_or_else(|error| panic!("{next}: {error}"));
        assert_eq!(answer["statusCode"], 200, "{next}: {answer}");
        let bytes = answer.to_string().len();
        assert!(bytes < MOST_BYTES, "{next}: {bytes} bytes");
        let page: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        entries.extend(page["data"].as_array().unwrap().iter().cloned());
        count += 1;
        let Some(cursor_of_next) = page["next_cursor"].as_str() else { return (entries, count) };
        next = format!("{path}{}{cursor}={cursor_of_next}", if path.contains('?') { "&" } else { "?" });
    }
}

fn ids(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_large_jobs_comes_in_shorter_pages_and_whole() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    // Quotation marks: each byte of the input is two of the answer.
    bench
        .sql(&format!(
            "SELECT punchcard.enqueue('{account}', 'free', ('\"' || repeat('\\\"', 32760) || '\"')::json,
                                      p_options => '{{\"tags\":[\"a\"]}}')
             FROM generate_series(1, 120)"
        ))
        .await;
    let (small, _) = pages(&bench, account, "/api/jobs?limit=5", "cursor").await;
    let expected = ids(&small);
    assert_eq!(expected.len(), 120);
    assert!(expected.is_sorted_by(|one, next| one > next), "newest first, each once");
    for query in ["limit=100", "limit=100&label=a", "limit=100&status=queued", "limit=100&kind=free"]
        .map(|query| format!("{query}&include=input,output"))
    {
        let (all, count) = pages(&bench, account, &format!("/api/jobs?{query}"), "cursor").await;
        assert_eq!(ids(&all), expected, "{query}");
        assert!((3..=8).contains(&count), "{query}: {count} pages");
        assert_eq!(all[7]["input"].as_str().unwrap().len(), 32_760);
    }
    let listed = said(&punchcard(&bench, &["jobs", "list", &account.to_string()]));
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&listed), expected[..50], "the command shows fifty, in as many looks as it takes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_all_that_it_may_have_is_answered() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10).await;
    let metadata: Value = (0..16).map(|n| (format!("{n:064}"), json!("\u{1}".repeat(512)))).collect();
    let body =
        json!({ "kind": "test.scripted", "metadata": metadata, "input": { "script": [{ "do": "done" }] } });
    let answer = bench.post(account, body, None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap();
    let settled = bench
        .count(
            "SELECT count(*) FROM punchcard.claim(1, '{test.scripted}', false, 60, 60) c, punchcard.settle(
                 ARRAY[c.job_id], ARRAY[c.lease_token], '{complete}', '{0}',
                 ARRAY['\"' || repeat('\\\"', 32760) || '\"'], '{NULL}')",
        )
        .await;
    assert_eq!(settled, 1);
    for path in [format!("/api/jobs/{id}"), "/api/jobs?include=output".to_owned()] {
        let answer = bench.get(account, &path).await;
        assert_eq!(answer.status, 200);
        let job = if path.ends_with(id) { &answer.body } else { &answer.body["data"][0] };
        assert_eq!((&job["status"], &job["metadata"]), (&json!("succeeded"), &metadata));
        assert_eq!(job["output"].as_str().unwrap().len(), 32_760);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempts_of_a_job_that_failed_at_length_come_in_pages() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_attempts = 25").await;
    let account = bench.account(10).await;
    let id = bench.script(account, json!([{ "do": "done" }])).await;
    // A thousand runs that were put off, each with the longest error there is: six bytes for each of its characters.
    bench
        .sql(
            "DO $$ BEGIN FOR n IN 1..1000 LOOP
                 PERFORM punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], '{snooze}', '{0}', '{NULL}',
                     ARRAY[json_build_object('code', 'target_error', 'attempt', 1, 'message', repeat(E'\\x01', 1000))::text])
                 FROM punchcard.claim(1, '{test.scripted}', false, 60, 60) c;
             END LOOP; END $$",
        )
        .await;
    let path = format!("/api/jobs/{id}/runs");
    let (attempts, count) = pages(&bench, account, &format!("{path}?limit=1000"), "cursor").await;
    let numbers: Vec<i64> = attempts.iter().map(|run| run["number"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
    assert_eq!(count, 10, "however many are asked for");
    assert_eq!(attempts[999]["error"]["message"], "\u{1}".repeat(1000));
    let (events, _) = pages(&bench, account, &format!("/api/jobs/{id}/events?limit=1000"), "cursor").await;
    assert_eq!(events.len(), 2_001);
    let shown = said(&punchcard(&bench, &["jobs", "show", &id]));
    assert_eq!(shown.lines().count(), 1_001, "the command shows all");
    for query in ["after=1", "before=1", "cursor=x", "limit=0"] {
        assert_eq!(bench.get(account, &format!("{path}?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(bench.get(bench.account(0).await, &format!("{path}?limit=1000")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_again_of_a_request_is_short() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    let name = "\u{1f980}".repeat(15_000);
    for answer in [
        bench.post(account, json!({ "kind": "free", (name.clone()): 1 }), None).await,
        bench.post(account, json!({ "kind": "free", "priority": name }), None).await,
        bench.get(account, &format!("/api/jobs?{name}=1")).await,
    ] {
        assert_eq!(answer.status, 400);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.len() < 400 && detail.contains("\u{1f980}\u{1f980}"), "{detail}");
    }
}
