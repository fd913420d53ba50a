//! Claim and settle as functions: order, delay, shares, locks.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use shared::{
    db::queue::{Capacity, Cursor},
    domain::{Deadline, Verdict},
};

use crate::support::{Bench, connect};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn capacity(limit: usize) -> Capacity<'static> {
    let minute = Duration::from_secs(60);
    Capacity {
        limit,
        named: &[],
        woken: false,
        rust_kinds: &["qr.svg", "free"],
        http: true,
        budget: minute,
        lease: minute,
    }
}

fn complete() -> Verdict {
    Verdict::Complete { output: serde_json::value::to_raw_value(&json!({ "ok": true })).unwrap(), used: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_honours_priority_then_age_and_leaves_what_is_delayed() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    for (input, priority, run_at) in [
        (1, 0, "now()"),
        (2, 0, "now()"),
        (3, 10, "now() + interval '1 hour'"),
        (4, -10, "now()"),
        (5, 10, "now() - interval '1 day'"),
        (6, 5, "now()"),
        (7, 10, "NULL"),
    ] {
        bench
            .sql(&format!(
                "SELECT punchcard.enqueue('{account}', 'free', '{input}', NULL, {priority}, {run_at})"
            ))
            .await;
    }
    let db = bench.db();
    let mut cursor = Cursor::default();
    let mut order = Vec::new();
    for _ in 0..7 {
        order.extend(
            db.claim(capacity(1), &mut cursor, soon())
                .await
                .unwrap()
                .leases
                .into_iter()
                .map(|lease| lease.input),
        );
    }
    assert_eq!(order, ["5", "7", "6", "1", "2", "4"], "3 is not due");
    bench.sql("UPDATE punchcard.queue SET run_at = now() WHERE priority = 10").await;
    let due = db.claim(capacity(10), &mut cursor, soon()).await.unwrap().leases;
    assert_eq!(due.len(), 1, "due now, and found by a claim that goes on from an earlier one");
}

/// Whichever kinds they are of, and however many of each: also while another worker has some of them.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_several_kinds_are_claimed_by_priority_then_age() {
    let bench = Bench::new().await;
    bench
        .sql("INSERT INTO punchcard.kinds (name, price) SELECT 'kind-' || n, 0 FROM generate_series(1, 5) n")
        .await;
    let kinds = ["kind-1", "kind-2", "kind-3", "kind-4", "kind-5"];
    let account = bench.account(0).await;
    for (round, (limit, locked)) in
        [(1, false), (2, false), (7, false), (30, false), (500, false), (7, true)].into_iter().enumerate()
    {
        // Of some kinds many, of others few; and one kind's are all older than the others'.
        bench
            .sql(&format!(
                "SELECT punchcard.enqueue('{account}', 'kind-' || CASE WHEN n % 7 < 3 THEN 1 WHEN n > 100 THEN 2 ELSE 2 + n % 4 END,
                                          to_json(n), p_priority => CASE WHEN n % 11 = 0 THEN -3 ELSE 0 END)
                 FROM generate_series(1, 120) n;
                 UPDATE punchcard.queue q
                 SET run_at = now() - interval '1 hour' + (CASE WHEN j.kind = 'kind-2' THEN 0 ELSE hashtext(j.input::text || {round}) % 1000 END)
                                                          * interval '1 second'
                 FROM punchcard.jobs j WHERE j.id = q.job_id"
            ))
            .await;
        let ordered = "SELECT job_id FROM punchcard.queue ORDER BY priority DESC, run_at, job_id";
        let mut expected: Vec<uuid::Uuid> = bench.rows(ordered).await.iter().map(|row| row.get(0)).collect();
        let other = connect(&bench.direct_url).await;
        if locked {
            let ids: Vec<_> = expected.iter().step_by(3).map(|id| format!("'{id}'")).collect();
            let lock =
                format!("BEGIN; SELECT FROM punchcard.queue WHERE job_id IN ({}) FOR UPDATE", ids.join(","));
            other.batch_execute(&lock).await.unwrap();
            expected =
                expected.into_iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, id)| id).collect();
        }
        let db = bench.db();
        let mut cursor = Cursor::default();
        let mut claimed = Vec::new();
        loop {
            let capacity = Capacity { rust_kinds: &kinds, ..capacity(limit) };
            let mut leases = db.claim(capacity, &mut cursor, soon()).await.unwrap().leases;
            if leases.is_empty() {
                break;
            }
            assert!(
                leases.len() == limit || claimed.len() + leases.len() == expected.len(),
                "no claim comes short"
            );
            // What one claim takes is started together.
            leases.sort_by_key(|lease| expected.iter().position(|id| *id == lease.job_id));
            claimed.extend(leases.iter().map(|lease| lease.job_id));
        }
        assert_eq!(claimed, expected, "{limit} at once, some of them locked: {locked}");
        other.batch_execute("ROLLBACK").await.unwrap();
        bench.sql("DELETE FROM punchcard.queue").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_goes_on_finds_what_was_committed_late_and_one_from_the_start_finds_all() {
    let bench = Bench::new().await;
    // Two accounts: the slow one's row is locked until it commits.
    let buy = |account: uuid::Uuid| format!("SELECT punchcard.enqueue('{account}', 'free')");
    let (slowly, enqueue) = (buy(bench.account(0).await), buy(bench.account(0).await));
    let slow = connect(&bench.direct_url).await;
    slow.batch_execute(&format!("BEGIN; {slowly}")).await.unwrap();
    bench.sql(&enqueue).await; // later, and committed earlier
    let db = bench.db();
    let mut cursor = Cursor::default();
    assert_eq!(db.claim(capacity(10), &mut cursor, soon()).await.unwrap().leases.len(), 1);
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        db.claim(capacity(10), &mut cursor, soon()).await.unwrap().leases.len(),
        1,
        "within five seconds"
    );
    bench.sql(&format!("{enqueue}; {enqueue}")).await;
    bench
        .sql("UPDATE punchcard.queue SET run_at = run_at - interval '1 hour' WHERE lease_expires_at IS NULL")
        .await;
    assert_eq!(db.claim(capacity(10), &mut cursor, soon()).await.unwrap().leases.len(), 0, "far behind");
    assert_eq!(db.claim(capacity(10), &mut Cursor::default(), soon()).await.unwrap().leases.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_the_same_accounts_in_opposite_order_never_deadlocks() {
    let bench = Bench::new().await;
    let mut accounts = Vec::new();
    for _ in 0..30 {
        accounts.push(bench.account(100).await);
    }
    accounts.sort();
    let settle = async |accounts: &[uuid::Uuid], round: usize| {
        // One job of each account, bought in this order: job ids rise with it.
        let client = connect(&bench.direct_url).await;
        let mut ids = Vec::new();
        for account in accounts {
            let sql = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{round}')");
            ids.push(client.query_typed(&sql, &[]).await.unwrap()[0].get::<_, uuid::Uuid>(0));
        }
        let list: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
        let list = list.join(",");
        let lease = format!(
            "UPDATE punchcard.queue SET lease_token = 1, attempt = 1, lease_expires_at = now() + interval '1 minute'
             WHERE job_id IN ({list});
             SELECT punchcard.settle(ARRAY[{list}]::uuid[], array_fill(1::bigint, ARRAY[30]), array_fill('fail'::text, ARRAY[30]),
                 array_fill(0::float8, ARRAY[30]), array_fill(NULL::text, ARRAY[30]), array_fill('{{}}'::text, ARRAY[30]))"
        );
        client.batch_execute(&lease).await.unwrap();
    };
    let reversed: Vec<_> = accounts.iter().rev().copied().collect();
    for round in 0..15 {
        let turns = (0..6).map(|turn| settle(if turn % 2 == 0 { &accounts } else { &reversed }, round));
        join_all(turns).await;
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(bench.count(deadlocks).await, 0);
    assert_eq!(
        bench.count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'failed'").await,
        15 * 6 * 30
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spread_account_spends_each_credit_once_and_adds_up() {
    let bench = Bench::new().await;
    let account = bench.account(500).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 7)")).await;
    let shares = format!("SELECT count(*) FROM punchcard.accounts WHERE id = '{account}' AND available > 0");
    assert_eq!(bench.count(&shares).await, 7);
    let posts = (0..100).map(|n| bench.post(account, json!({ "kind": "echo.http", "input": n }), None));
    let statuses: Vec<u64> = join_all(posts).await.iter().map(|answer| answer.status).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 202).count(),
        50,
        "to the last credit: {statuses:?}"
    );
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 50);
    assert_eq!(bench.balance(account).await, (0, 500));
    bench.assert_audit_is_clean().await;

    // Settled where it was held, released where it was held; a correction reaches every share.
    let db = bench.db();
    let leases = db.claim(capacity(50), &mut Cursor::default(), soon()).await.unwrap().leases;
    let (kept, given_back) = leases.split_at(20);
    let done: Vec<_> = kept.iter().map(|lease| (lease.clone(), complete())).collect();
    assert_eq!(db.settle(&done, soon()).await.unwrap().jobs.len(), 20);
    let error = shared::domain::JobError::new(shared::domain::ErrorCode::HandlerError, "no");
    let failed: Vec<_> =
        given_back.iter().map(|lease| (lease.clone(), Verdict::Fail(error.clone()))).collect();
    assert_eq!(db.settle(&failed, soon()).await.unwrap().jobs.len(), 30);
    assert_eq!(bench.balance(account).await, (300, 0));
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{account}', -290, 'fix')")).await;
    bench.assert_audit_is_clean().await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 1)")).await;
    assert_eq!(bench.count(&shares).await, 1, "together again");
    assert_eq!(bench.post(account, json!({ "kind": "echo.http" }), None).await.status, 202);
    assert_eq!(bench.balance(account).await, (0, 10));
    bench.assert_audit_is_clean().await;
    let ledger = bench.get(account, "/api/credits/ledger?limit=100").await.body;
    assert!(ledger["data"].as_array().unwrap().iter().all(|entry| entry["kind"] != "shift"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_worker_can_read_end_as_failed_and_spoil_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for input in ["1e400", &deep, r#""\\ud800""#, r#"{"text": 1e400}"#] {
        bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'qr.svg', '{input}')")).await;
    }
    bench.enqueue(account, "qr.svg", 20).await;
    bench.drain().await;
    let by = |status: &str| format!("SELECT count(*) FROM punchcard.outcomes WHERE status = '{status}'");
    assert_eq!((bench.count(&by("failed")).await, bench.count(&by("succeeded")).await), (4, 20));
    assert_eq!(bench.balance(account).await, (80, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_to_a_share_that_is_not_used_any_more_can_be_adjusted_away() {
    let bench = Bench::new().await;
    let account = bench.account(80).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 8)")).await;
    // All is held, on every share; then the account is brought together, and the jobs fail.
    bench.enqueue(account, "unserved", 16).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 1)")).await;
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'unserved'").await;
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (80, 0));
    let left = format!("SELECT punchcard.increment_user_credits('{account}', -70, 'correction')");
    assert_eq!(bench.count(&left).await, 10);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_who_empty_a_spread_account_never_deadlock() {
    let bench = Bench::new().await;
    let account = bench.account(400).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 8)")).await;
    let mut buyers = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let client = crate::support::connect(&bench.direct_url).await;
        buyers.spawn(async move {
            let mut bought = 0;
            for _ in 0..60 {
                let enqueue = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{}}')");
                match client.query_typed(&enqueue, &[]).await {
                    Ok(_) => bought += 1,
                    Err(error) => assert_eq!(error.code().unwrap().code(), "PT402", "{error:?}"),
                }
            }
            bought
        });
    }
    let bought: i32 = buyers.join_all().await.into_iter().sum();
    assert_eq!(bought, 400, "each credit once");
    assert_eq!(bench.balance(account).await, (0, 400));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_who_waited_for_shares_that_were_emptied_meanwhile_never_deadlock() {
    // Who wakes first, and how far it gets before the other, differs from time to time.
    const ROUNDS: i64 = 60;
    let bench = Bench::new().await;
    let account = bench.account(800).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 8)")).await;
    // Two buyers of different shares, neither of them the first.
    let mut buyers = std::collections::BTreeMap::new();
    let mut spare = Vec::new();
    while buyers.len() < 2 {
        let client = crate::support::connect(&bench.direct_url).await;
        let share: i32 = client.query_typed("SELECT pg_backend_pid() % 8", &[]).await.unwrap()[0].get(0);
        match share {
            0 => spare.push(client),
            share => drop(buyers.insert(share, std::sync::Arc::new(client))),
        }
    }
    let dealer = crate::support::connect(&bench.direct_url).await;
    for _ in 0..ROUNDS {
        let deal = format!("BEGIN; SELECT punchcard.deal_credits('{account}', 1, 0, 0)");
        dealer.batch_execute(&deal).await.unwrap();
        let mut buying = tokio::task::JoinSet::new();
        for client in buyers.values() {
            let client = std::sync::Arc::clone(client);
            buying.spawn(async move {
                let enqueue = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{}}')");
                client.query_typed(&enqueue, &[]).await.map(drop)
            });
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%punchcard.enqueue%'";
        while bench.count(waiting).await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        dealer.batch_execute("COMMIT").await.unwrap();
        for bought in buying.join_all().await {
            bought.expect("no deadlock");
        }
    }
    assert_eq!(bench.balance(account).await, (800 - 2 * ROUNDS, 2 * ROUNDS));
    bench.assert_audit_is_clean().await;
}
