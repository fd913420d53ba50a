//! A job that ends while somebody else holds its account: final at once, and what it moves is entered by whoever holds the account
//! next, once.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::help::code;
use crate::support::{Bench, OWNER, as_role, connect};

const WAITING: &str = "SELECT count(*) FROM punchcard.deferred_entries WHERE entry IS NULL";

/// Claims all that is due of `qr.svg`, and reports it as done.
const DONE: &str = "SELECT count(s.job_id) FROM (
        SELECT array_agg(c.job_id) AS ids, array_agg(c.lease_token) AS tokens, array_agg('complete'::text) AS verdicts,
               array_agg(0::float8) AS delays, array_agg('{}'::text) AS outputs, array_agg(NULL::text) AS errors,
               array_agg(3::bigint) AS used
        FROM punchcard.claim(100, '{qr.svg,used}', true, 60, 60) c) c,
    punchcard.settle(c.ids, c.tokens, c.verdicts, c.delays, c.outputs, c.errors, c.used) s";

/// Somebody who holds an account's rows until they are told to let go.
async fn holder(bench: &Bench, account: Uuid) -> Client {
    let client = connect(&as_role(&bench.direct_url, OWNER)).await;
    let hold = format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE");
    client.batch_execute(&hold).await.expect("a lock");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_final_and_paid_at_once_and_can_be_spent_as_soon_as_its_account_is_free() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, metered) VALUES ('used', 10, true)").await;
    let account = bench.account(10).await;
    bench
        .sql(&format!("INSERT INTO punchcard.limits (account_id, unfinished_jobs) VALUES ('{account}', 1)"))
        .await;
    let id =
        bench.post(account, json!({ "kind": "used" }), None).await.body["id"].as_str().unwrap().to_owned();
    assert_eq!(code(&bench.post(account, json!({ "kind": "free" }), None).await), (429, "too_many_jobs"));
    let holder = holder(&bench, account).await;
    assert_eq!(bench.count(DONE).await, 1);
    assert_eq!(bench.count(WAITING).await, 1);
    let job = bench.job(account, &id).await;
    assert_eq!((&job["status"], &job["credits"]["captured"]), (&json!("succeeded"), &json!(3)));
    assert_eq!(bench.balance(account).await, (7, 0), "what waits to be entered is shown");
    let ledger = bench.get(account, "/api/credits/ledger").await.body["data"].clone();
    let shown =
        |n: usize| (ledger[n]["kind"].clone(), ledger[n]["id"].clone(), ledger[n]["available_after"].clone());
    assert_eq!(shown(0), (json!("release"), json!(3), json!(7)), "{ledger}");
    assert_eq!(shown(1), (json!("capture"), json!(3), json!(0)), "{ledger}");
    assert_eq!(shown(2), (json!("hold"), json!(2), json!(0)), "{ledger}");
    bench.assert_audit_is_clean_meanwhile().await;

    holder.batch_execute("COMMIT").await.unwrap();
    // Nobody ticks: whoever buys finds the seven credits, and that the limit has room.
    bench.sql("UPDATE punchcard.kinds SET price = 7 WHERE name = 'used'").await;
    let bought = bench.post(account, json!({ "kind": "used" }), None).await;
    assert_eq!(bought.status, 202, "{}", bought.body);
    assert_eq!((bench.balance(account).await, bench.count(WAITING).await), ((0, 7), 0));
    let after = bench.get(account, "/api/credits/ledger").await.body["data"].clone();
    assert_eq!(after[1], ledger[0], "entered as it was shown");
    bench.assert_audit_is_clean().await;
    assert_eq!(code(&bench.post(account, json!({ "kind": "free" }), None).await), (429, "too_many_jobs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_a_return_and_a_spread_enter_what_waits_before_they_look() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, metered) VALUES ('used', 10, true)").await;
    for (what, shares) in [
        ("SELECT punchcard.increment_user_credits('{}', -7, 'charge')", 1),
        ("SELECT punchcard.increment_user_credits('{}', -7, 'charge')", 4),
        ("SELECT punchcard.spread_account('{}', 3)", 1),
        ("SELECT punchcard.rescue(1)", 4),
    ] {
        let account = bench.account(10).await;
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {shares})")).await;
        assert_eq!(bench.post(account, json!({ "kind": "used" }), None).await.status, 202);
        let holder = holder(&bench, account).await;
        assert_eq!(bench.count(DONE).await, 1, "{what}");
        bench.assert_audit_is_clean_meanwhile().await;
        holder.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(bench.balance(account).await, (7, 0));
        bench.sql(&what.replace("{}", &account.to_string())).await;
        assert_eq!(bench.count(WAITING).await, 0, "{what}");
        let left = if what.contains("-7") { 0 } else { 7 };
        assert_eq!(bench.balance(account).await, (left, 0), "{what}");
        bench.assert_audit_is_clean().await;
    }
}

/// Ten jobs' ends wait; two ticks, a buyer who needs what they release, and a charge go at once.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_enters_at_once_enters_once() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, metered) VALUES ('used', 10, true)").await;
    let clients = [(); 4];
    let mut folders = Vec::new();
    for () in clients {
        folders.push(connect(&as_role(&bench.direct_url, OWNER)).await);
    }
    for round in 0..200 {
        let account = bench.account(250).await;
        bench.enqueue(account, "used", 10).await;
        // What is held for others would hide from the table's own check that something was entered twice.
        bench.enqueue(account, "unserved", 30).await;
        let holder = holder(&bench, account).await;
        assert_eq!(bench.count(DONE).await, 10);
        assert_eq!(bench.count(WAITING).await, 10);
        let statements = [
            "SELECT punchcard.rescue(1)".to_owned(),
            "SELECT punchcard.rescue(1)".into(),
            format!("SELECT punchcard.enqueue('{account}', 'used')"),
            format!("SELECT punchcard.increment_user_credits('{account}', -30, 'charge')"),
        ];
        let all = folders.iter().zip(&statements).map(|(client, sql)| client.batch_execute(sql));
        let all = futures_util::future::join_all(all);
        let let_go = async {
            if round % 2 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            holder.batch_execute("COMMIT").await.unwrap();
        };
        let (all, ()) = tokio::join!(all, let_go);
        all.into_iter().for_each(|answer| answer.expect("no deadlock, and enough for both"));
        bench.sql("SELECT punchcard.rescue(1)").await;
        assert_eq!(
            (bench.balance(account).await, bench.count(WAITING).await),
            ((30, 160), 0),
            "round {round}"
        );
        bench
            .sql(&format!(
                "SELECT punchcard.cancel(job_id) FROM punchcard.queue WHERE account_id = '{account}'"
            ))
            .await;
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_in_time_counts_though_somebody_holds_the_account() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let wait = "SELECT count(s.job_id) FROM punchcard.claim(1, '{qr.svg}', true, 60, 60) c,
        punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], ARRAY['wait'], ARRAY[60], ARRAY[NULL], ARRAY[NULL]) s";
    assert_eq!(bench.count(wait).await, 1);
    let holder = holder(&bench, account).await;
    let call = "SET lock_timeout = '5s'; SELECT punchcard.call_back(job_id, lease_token, 'complete', 0, '1') FROM punchcard.queue";
    connect(&as_role(&bench.direct_url, OWNER)).await.batch_execute(call).await.expect("it waits for nobody");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes WHERE status = 'succeeded'").await, 1);
    bench.assert_audit_is_clean_meanwhile().await;
    holder.batch_execute("COMMIT").await.unwrap();
    bench.sql("SELECT punchcard.rescue(1)").await;
    assert_eq!(bench.count(WAITING).await, 0);
    bench.assert_audit_is_clean().await;
}

/// What the database refuses to enter for one account keeps nobody else's jobs from being taken back, and goes on waiting.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_entered_stops_no_rescue() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(10).await, bench.account(10).await);
    bench.enqueue(account, "qr.svg", 1).await;
    let holder = holder(&bench, account).await;
    assert_eq!(bench.count(DONE).await, 1);
    holder.batch_execute("COMMIT").await.unwrap();
    bench.enqueue(other, "qr.svg", 1).await;
    bench.sql(&format!("UPDATE punchcard.accounts SET held = 0 WHERE id = '{account}'")).await;
    bench.sql(&format!("UPDATE punchcard.queue SET expires_at = now() WHERE account_id = '{other}'")).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.rescue(10) WHERE status = 'failed'").await, 1);
    assert_eq!((bench.balance(other).await, bench.count(WAITING).await), ((10, 0), 1));
    bench.sql(&format!("UPDATE punchcard.accounts SET held = 1 WHERE id = '{account}'")).await;
    bench.sql("SELECT punchcard.rescue(1)").await;
    assert_eq!(bench.count(WAITING).await, 0);
    bench.assert_audit_is_clean().await;
}

/// Who waits for an account's shares while somebody spreads it finds what lies on those that are new.
#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_who_waits_for_a_spread_finds_all_credits() {
    let bench = Bench::new().await;
    for spread in [1, 2] {
        let account = bench.account(100).await;
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {spread})")).await;
        let holder = connect(&as_role(&bench.direct_url, OWNER)).await;
        let hold = format!(
            "BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' AND share = 0 FOR NO KEY UPDATE"
        );
        holder.batch_execute(&hold).await.unwrap();
        let (spreader, buyer) = (
            connect(&as_role(&bench.direct_url, OWNER)).await,
            connect(&as_role(&bench.direct_url, OWNER)).await,
        );
        let sixty = (0..6).map(|_| r#"{"kind":"echo.http"}"#).collect::<Vec<_>>().join(",");
        let buy = format!("SELECT punchcard.enqueue_batch('{account}', '[{sixty}]')");
        let spread = format!("SELECT punchcard.spread_account('{account}', 16)");
        let in_turn = async |n: u64, client: &Client, sql: &str| {
            tokio::time::sleep(std::time::Duration::from_millis(200 * n)).await;
            client.batch_execute(sql).await
        };
        let (spread, bought, ended) = tokio::join!(
            in_turn(0, &spreader, &spread),
            in_turn(1, &buyer, &buy),
            in_turn(3, &holder, "ROLLBACK")
        );
        ended.unwrap();
        spread.unwrap();
        bought.expect("a hundred credits are enough for sixty");
        assert_eq!(bench.balance(account).await, (40, 60));
    }
    bench.assert_audit_is_clean().await;
}

/// All pages, whatever their size, are the ledger: none skipped, none twice, with ends that wait, of one time, and ids of an import.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_are_the_whole_ledger() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, metered) VALUES ('used', 10, true)").await;
    let account = bench.account(1_000).await;
    for _ in 0..3 {
        bench.enqueue(account, "used", 3).await;
        bench.enqueue(account, "free", 3).await;
        assert_eq!(bench.count(DONE).await, 3);
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', 2)")).await;
    }
    // An import keeps a UUID as it is, whatever time it seems to say; and its ends may all have one time.
    let imported = [
        "9fffffff-ffff-4fff-8fff-ffffffffffff",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        // In one millisecond, which the first tells to its last microsecond, and the second to none.
        "00000000-0000-7fff-8000-000000000004",
        "00000000-0000-8000-8000-000000000001",
        "00000000-0000-8fff-8000-000000000002",
        "00000000-0000-4000-8000-000000000003",
    ];
    for id in imported {
        bench
            .sql(&format!(
                "WITH held AS (SELECT * FROM punchcard.hold_credits('{account}', 10, 1, 2)), job AS (
                     INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, share, terms_id, kind,
                                                 priority, max_attempts, expires_at, input)
                     SELECT '{account}', '{id}', 10, h.entry, h.available, h.held, h.share, k.terms_id, k.name, 0, 3,
                            now() + interval '1 day', '{{}}'
                     FROM held h, punchcard.kinds k WHERE k.name = 'used' RETURNING *)
                 INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, bytes, priority, max_attempts, run_at,
                                              expires_at)
                 SELECT id, account_id, share, kind, price, terms_id, 2, 0, 3, now(), expires_at FROM job"
            ))
            .await;
    }
    let holder = holder(&bench, account).await;
    assert_eq!(bench.count(DONE).await, 6);
    assert_eq!(bench.count(WAITING).await, 6);
    let all = "SELECT count(*) FROM punchcard.ledger WHERE kind <> 'shift' AND account_id =";
    let all = usize::try_from(bench.count(&format!("{all} '{account}'")).await).unwrap();
    assert_eq!(all, 1 + 9 + 18 + 6 + 12);
    for limit in [1, 2, 3, 7, 100] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bench.get(account, &format!("/api/credits/ledger?limit={limit}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.body);
            seen.extend(page.body["data"].as_array().unwrap().iter().map(ToString::to_string));
            let Some(next) = page.body["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), all, "pages of {limit}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all, "pages of {limit} repeat");
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    bench.sql("SELECT punchcard.rescue(1)").await;
    bench.assert_audit_is_clean().await;
}
