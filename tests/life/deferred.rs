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
        .sql(&format!("INSERT INTO punchcard.caps (account_id, unfinished_jobs) VALUES ('{account}', 1)"))
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
    // Nobody ticks: whoever buys finds the seven credits, and that the cap has room.
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
        let account = bench.account(100).await;
        bench.enqueue(account, "used", 10).await;
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
            ((30, 10), 0),
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
