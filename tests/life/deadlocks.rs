//! Several things done in one transaction of the team's own, beside others who do the same, and beside workers: no deadlock but those
//! that the documents name.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use shared::domain::Deadline;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Bench, OWNER, as_role, connect};

async fn team(bench: &Bench) -> Client {
    connect(&as_role(&bench.direct_url, OWNER)).await
}

/// `BEGIN; …; COMMIT`, one statement after the other; the word of who refuses.
async fn transaction(client: &Client, statements: &[String]) -> Result<(), String> {
    client.batch_execute("BEGIN").await.unwrap();
    for sql in statements {
        if let Err(error) = client.batch_execute(sql).await {
            client.batch_execute("ROLLBACK").await.unwrap();
            let error = error.as_db_error().expect("the database's word");
            return Err(format!("{} {}", error.code().code(), error.message()));
        }
    }
    client.batch_execute("COMMIT").await.unwrap();
    Ok(())
}

fn canceled(id: &str, account: Uuid) -> String {
    format!("SELECT punchcard.cancel('{id}', '{account}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_canceled_together_deadlock_neither_with_workers_nor_with_each_other() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10_000).await;
    let (one, other) = (team(&bench).await, team(&bench).await);
    let workers = [bench.scripted_worker(), bench.scripted_worker()];
    for round in 0..12 {
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(bench.script(account, json!([{ "do": "done", "seconds": 0.05 }])).await);
        }
        let all: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        // Whoever is final already is refused, and would take the others with it: it is left out.
        let all = format!(
            "SELECT CASE WHEN j.status = 'queued' THEN punchcard.cancel(j.id) END
             FROM punchcard.jobs_now j WHERE j.id IN ({}) ORDER BY j.id {}",
            all.join(","),
            if round % 2 == 0 { "ASC" } else { "DESC" }
        );
        let reversed: Vec<String> = ids.iter().rev().map(|id| canceled(id, account)).collect();
        let (first, second, _) = tokio::join!(
            transaction(&one, std::slice::from_ref(&all)),
            transaction(&other, &reversed),
            join_all(workers.iter().map(async |worker| worker.invoke(&json!({})).await))
        );
        for refused in [first, second].into_iter().filter_map(Result::err) {
            assert!(refused.starts_with("PT409"), "{refused}");
        }
    }
    bench.wait(60).await;
    super::help::tick(&bench).await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_of_a_spread_account_in_one_transaction_do_not_deadlock() {
    let bench = Bench::new().await;
    let account = bench.account(4_000).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 4)")).await;
    let teams = join_all((0..8).map(|_| team(&bench))).await;
    let buy = format!("SELECT punchcard.enqueue('{account}', 'echo.http')");
    let mut bought = 0;
    for _ in 0..15 {
        let thrice = vec![buy.clone(); 3];
        for done in join_all(teams.iter().map(|team| transaction(team, &thrice))).await {
            done.expect("no deadlock while there is enough");
            bought += 3;
        }
    }
    assert_eq!(bench.balance(account).await, (4_000 - bought * 10, bought * 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_retried_together_in_opposite_order_do_not_deadlock() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(10_000).await;
    let (one, other) = (team(&bench).await, team(&bench).await);
    for _ in 0..6 {
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(bench.script(account, json!([{ "do": "final" }])).await);
        }
        super::help::tick(&bench).await;
        let retry = |id: &String| format!("SELECT punchcard.retry('{id}', '{account}')");
        let there: Vec<String> = ids.iter().map(retry).collect();
        let back: Vec<String> = ids.iter().rev().map(retry).collect();
        let (first, second) = tokio::join!(transaction(&one, &there), transaction(&other, &back));
        let refused: Vec<String> = [first, second].into_iter().filter_map(Result::err).collect();
        assert_eq!(refused, ["PT409 already_retried"], "one of them, all of it");
        bench.sql("SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued'").await;
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_survives_a_deadlock_with_a_transaction_of_the_teams() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    let team = team(&bench).await;
    // The team's transaction holds the account and waits for the key; the API has the key and waits for the account.
    let buy = |key: &str| format!("SELECT punchcard.enqueue('{account}', 'echo.http', '{{}}', '{key}')");
    let mut broken = 0;
    for round in 0..4 {
        team.batch_execute(&format!("BEGIN; {}", buy(&format!("first {round}")))).await.unwrap();
        let key = format!("twin {round}");
        let post = bench.post(account, json!({ "kind": "echo.http", "input": {} }), Some(&key));
        let twin = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let bought = team.batch_execute(&buy(&key)).await;
            let end = if bought.is_ok() { "COMMIT" } else { "ROLLBACK" };
            team.batch_execute(end).await.unwrap();
            bought.err().map(|error| error.as_db_error().unwrap().code().code().to_owned())
        };
        let (answer, refused) = tokio::join!(post, twin);
        assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.body);
        match refused.as_deref() {
            None => {}
            Some("40P01") => broken += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("the team's transaction was rolled back {broken} times of 4");
    bench.assert_audit_is_clean().await;
}

/// The exception of LIFE_OF_A_JOB.md that is about spread accounts: whoever is ended runs again, and both are done.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_over_the_shares_of_an_account_is_run_again_and_ours_runs_again_by_itself() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 3)")).await;
    let (team, db) = (team(&bench).await, bench.operators_db());
    for (shares, amount) in [(3, None), (3, Some(-60)), (2, None), (3, Some(60))] {
        // A job on share 1, and one on share 2: whose it is depends on the connection.
        let mut jobs = [None, None];
        while jobs.contains(&None) {
            let buyer = self::team(&bench).await;
            let share: i32 = buyer.query_typed("SELECT pg_backend_pid() % 3", &[]).await.unwrap()[0].get(0);
            if let Some(job @ None) = usize::try_from(share - 1).ok().and_then(|nth| jobs.get_mut(nth)) {
                let buy = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'free')");
                *job = Some(buyer.query_typed(&buy, &[]).await.expect(&buy)[0].get::<_, Uuid>(0));
            }
        }
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {shares})")).await;
        let cancel = |nth: usize| canceled(&jobs[nth].unwrap().to_string(), account);
        team.batch_execute(&format!("BEGIN; {}", cancel(1))).await.unwrap();
        let other = async {
            let Some(amount) = amount else {
                let soon = Deadline::after(Duration::from_secs(60));
                return db.spread_account(account, shares, soon).await.expect("sent again by itself");
            };
            let adjust =
                format!("SELECT punchcard.increment_user_credits('{account}', {amount}, '{amount}')");
            while let Err(refused) =
                transaction(&self::team(&bench).await, std::slice::from_ref(&adjust)).await
            {
                assert!(refused.starts_with("40P01"), "{refused}");
            }
        };
        let beside = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let ended = match team.batch_execute(&cancel(0)).await {
                Ok(()) => return team.batch_execute("COMMIT").await.unwrap(),
                Err(error) => error.as_db_error().expect("the database's word").code().clone(),
            };
            assert_eq!(ended.code(), "40P01");
            team.batch_execute("ROLLBACK").await.unwrap();
            let both = [cancel(1), cancel(0)];
            while let Err(refused) = transaction(&team, &both).await {
                assert!(refused.starts_with("40P01"), "{refused}");
            }
        };
        tokio::join!(other, beside);
        let unfinished = "SELECT count(*) FROM punchcard.jobs_now WHERE finished_at IS NULL";
        assert_eq!(bench.count(unfinished).await, 0, "both are canceled");
    }
    let met = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert!(bench.count(met).await > 0, "they did meet");
    assert_eq!(bench.balance(account).await, (100, 0));
    bench.assert_audit_is_clean().await;
}
