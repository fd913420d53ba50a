//! What a request may need of a PostgreSQL backend's memory, whatever is sent, and of its disk before it is paid for.
#![cfg(target_os = "linux")]

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    cli::limit,
    support::{Bench, bearer, connect, event},
};

/// What a backend may take beside what it had after its first statements.
const MOST_MB: i64 = 200;

/// Figures of a process in MB, as its `/proc/…/status` has them: what it has mapped at most, and now. The shared buffers are mapped
/// from the beginning, so that what is added is its own.
async fn mapped(client: &Client, pid: i32) -> (i64, i64) {
    let sql = format!("SELECT pg_read_file('/proc/{pid}/status')");
    let status: String = client.query_typed(&sql, &[]).await.expect("a server on this machine")[0].get(0);
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse::<i64>().expect("kB") / 1024
    };
    (figure("VmPeak:"), figure("VmSize:"))
}

async fn pid(client: &Client) -> i32 {
    client.query_typed("SELECT pg_backend_pid()", &[]).await.unwrap()[0].get(0)
}

fn list(count: usize, entry: &str) -> String {
    vec![entry; count].join(",")
}

/// The one backend of the API's.
async fn backend(bench: &Bench) -> i32 {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'punchcard_app'";
    let rows = bench.rows(sql).await;
    assert_eq!(rows.len(), 1, "one connection");
    rows[0].get(0)
}

async fn post(bench: &Bench, account: Uuid, body: &str, key: &str) -> (u64, Value) {
    let token = bearer(account);
    let headers =
        [("authorization", token.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
    let answer = bench.request(event("POST", "/api/jobs:batch", &headers, Some(body))).await;
    (answer.status, answer.body["code"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_json_needs_less_than_200_mb_of_its_backend() {
    let bench = Bench::new().await;
    let (rich, poor) = (bench.account(10_000).await, bench.account(0).await);
    let jobs = |count: usize, input: &str| {
        format!(r#"{{"jobs":[{}]}}"#, list(count, &format!(r#"{{"kind":"qr.svg","input":{input}}}"#)))
    };
    assert_eq!(post(&bench, rich, &jobs(1, r#"{"text":"t"}"#), "first").await.0, 202);
    let (_, before) = mapped(&bench.admin, backend(&bench).await).await;
    let of = |count: usize, entry: &str| format!("[{}]", list(count, entry));
    for (name, input) in [
        ("numbers of 309 digits", of(10_900, "1e308")),
        ("digits", of(32_700, "1")),
        ("arrays", of(21_800, "[]")),
        ("nulls", of(13_100, "null")),
        (
            "members",
            format!("{{{}}}", (0..5_000).map(|n| format!("\"{n:05}\":{n}")).collect::<Vec<_>>().join(",")),
        ),
        ("escapes", format!("\"{}\"", r"\u0001".repeat(10_900))),
    ] {
        let batch = jobs(63, &input);
        let unpaid = post(&bench, poor, &batch, name).await;
        assert_eq!(unpaid, (402, json!("insufficient_credits")), "{name}");
        // Bought, and answered again.
        for status in [202, 200] {
            assert_eq!(post(&bench, rich, &batch, name).await.0, status, "{name}");
        }
        let (peak, _) = mapped(&bench.admin, backend(&bench).await).await;
        assert!(peak - before < MOST_MB, "{name}: {} MB", peak - before);
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_sql_sends_needs_less_than_200_mb_of_its_backend() {
    let bench = Bench::new().await;
    let account = bench.account(10_000).await;
    let batch = |job: &str| format!("punchcard.enqueue_batch('{account}', ('[' || {job} || ']')::json, 'k')");
    let one = |options: &str| {
        format!("punchcard.enqueue('{account}', 'free', '{{}}', 'k', p_options => {options})")
    };
    // Each is refused, or bought, or answered again.
    for (name, call) in [
        ("one input of all", batch(r#"'{"kind":"free","input":[' || repeat('1,', 2500000) || '1]}'"#)),
        ("a member that is not known", batch(r#"'{"kind":"free","x":[' || repeat('1,', 2500000) || '1]}'"#)),
        ("tags", batch(r#"'{"kind":"free","tags":[' || repeat('1,', 2500000) || '1]}'"#)),
        (
            "retries",
            batch(
                r#"repeat('{"kind":"free","retry":[' || repeat('0,', 32000) || '0]},', 79) || '{"kind":"free"}'"#,
            ),
        ),
        ("numbers for jobs", batch("repeat('1,', 2500000) || '1'")),
        ("more than there may be", batch(r#"'{"kind":"free","input":"' || repeat('x', 12000000) || '"}'"#)),
        (
            "digits",
            batch(
                r#"repeat('{"kind":"free","input":[' || repeat('1e131071,', 7000) || '1]},', 80) || '{"kind":"free"}'"#,
            ),
        ),
        (
            "an input",
            format!(
                "punchcard.enqueue('{account}', 'free', ('[' || repeat('1,', 10000000) || '1]')::json, 'j')"
            ),
        ),
        (
            "digits in options",
            one(r#"('{"retry":{"jitter":[' || repeat('1e131071,', 3000) || '1]}}')::jsonb"#),
        ),
        ("many options", one(r#"('{"tags":[' || repeat('1,', 300000) || '1]}')::jsonb"#)),
    ] {
        let client = connect(&bench.direct_url).await;
        let first = format!(
            "SELECT punchcard.enqueue('{account}', 'free', '1', 'k');
            SELECT punchcard.enqueue_batch('{account}', '[{{\"kind\":\"free\",\"tags\":[\"a\"]}}]', 'first')"
        );
        client.batch_execute(&first).await.unwrap();
        let pid = pid(&client).await;
        let (_, before) = mapped(&client, pid).await;
        let refused = client.batch_execute(&format!("SELECT {call}")).await.err();
        let code = refused.as_ref().and_then(|error| error.code()).map_or("", |code| code.code());
        assert!(["", "PT422"].contains(&code), "{name}: {refused:?}");
        let (peak, _) = mapped(&client, pid).await;
        assert!(peak - before < MOST_MB, "{name}: {} MB", peak - before);
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_paid_or_is_over_a_cap_is_refused_before_it_is_written() {
    let bench = Bench::new().await;
    let (poor, full) = (bench.account(0).await, bench.account(1_000).await);
    limit(&bench, full, ["1", "none", "none"]);
    bench.enqueue(full, "qr.svg", 1).await;
    // Random, so that it takes as much room as it is long.
    let input: String = (0..1_800).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let job = json!({ "kind": "qr.svg", "input": input });
    let batch = json!({ "jobs": [job, job] }).to_string();
    let room = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
                WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r'";
    let before = bench.count(room).await;
    for n in 0..20 {
        let key = format!("k{n}");
        assert_eq!(bench.post(poor, job.clone(), Some(&key)).await.status, 402);
        assert_eq!(bench.post(full, job.clone(), Some(&key)).await.status, 429);
        assert_eq!(post(&bench, poor, &batch, &key).await, (402, json!("insufficient_credits")));
        assert_eq!(post(&bench, full, &batch, &key).await, (422, json!("over_limit")));
    }
    let grown = bench.count(room).await - before;
    assert!(grown < 500_000, "{grown} bytes for 80 requests that were refused");
    assert_eq!(bench.balance(full).await, (999, 1));
    bench.assert_audit_is_clean().await;
}
