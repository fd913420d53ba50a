//! What the schema forbids, and what the audit finds.

use crate::support::Bench;

async fn refuses(bench: &Bench, sql: &str, code: &str) {
    let error = bench.admin.batch_execute(sql).await.expect_err(sql);
    assert_eq!(error.code().map(|code| code.code()), Some(code), "{sql}: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_cannot_be_rewritten() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    bench.drain().await;
    for sql in [
        "UPDATE punchcard.movements SET amount = 1000",
        "DELETE FROM punchcard.movements",
        "TRUNCATE punchcard.movements",
        "UPDATE punchcard.kind_terms SET price = 0",
        "DELETE FROM punchcard.kind_terms",
        "DELETE FROM punchcard.accounts",
        "UPDATE punchcard.jobs SET price = 0",
        "DELETE FROM punchcard.jobs",
        "TRUNCATE punchcard.jobs",
        "UPDATE punchcard.outcomes SET status = 'canceled'",
        "DELETE FROM punchcard.outcomes",
        "DELETE FROM punchcard.kinds",
    ] {
        refuses(&bench, sql, "23001").await;
    }
    refuses(&bench, "UPDATE punchcard.accounts SET available = -1", "23514").await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adrs_function_refuses_an_overdraft_and_counts_once() {
    let bench = Bench::new().await;
    let account = bench.account(3).await;
    let add = |amount: i64, key: &str| {
        format!("SELECT punchcard.increment_user_credits('{account}', {amount}, '{key}')")
    };
    refuses(&bench, &add(-10, "a"), "PT402").await;
    refuses(&bench, &add(0, "a"), "PT422").await;
    refuses(&bench, &format!("SELECT punchcard.increment_user_credits('{account}', 1, NULL)"), "PT422").await;
    bench.sql(&add(-3, "b")).await;
    bench.sql(&add(-3, "b")).await;
    refuses(&bench, &add(-2, "b"), "PT422").await;
    assert_eq!(bench.balance(account).await, (0, 0));
    let job = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'free')");
    let job: uuid::Uuid = bench.rows(&job).await[0].get(0);
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{account}', 5, 'c', '{job}')")).await;
    refuses(
        &bench,
        &format!("SELECT punchcard.increment_user_credits('{account}', 5, 'd', '{job}')"),
        "PT409",
    )
    .await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueue_rolls_back_with_the_callers_transaction() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.sql(&format!("BEGIN; SELECT punchcard.enqueue('{account}', 'echo.http'); ROLLBACK")).await;
    assert_eq!(bench.balance(account).await, (10, 0));
    refuses(&bench, &format!("SELECT punchcard.enqueue('{account}', 'no.such')"), "PT422").await;
    refuses(
        &bench,
        &format!(r#"SELECT punchcard.enqueue('{account}', 'free', '{{"a":"\u0000"}}')"#),
        "PT422",
    )
    .await;
    refuses(
        &bench,
        &format!("SELECT punchcard.enqueue('{account}', 'unserved', to_json(repeat('x', 70000)))"),
        "PT422",
    )
    .await;
    bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'echo.http')")).await;
    refuses(&bench, &format!("SELECT punchcard.enqueue('{account}', 'echo.http')"), "PT402").await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_invariant_of_the_audit_finds_what_it_is_for() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 2).await;
    // Planted by switching the guards off, as a careless repair would.
    for (invariant, plant) in [
        ("I1", "DELETE FROM punchcard.queue"),
        ("I2", "UPDATE punchcard.accounts SET available = available + 1"),
        ("I2", "UPDATE punchcard.jobs SET price = price + 1"),
        ("I3", "UPDATE punchcard.jobs SET terms_id = 0"),
        (
            "I4",
            "DELETE FROM punchcard.queue; INSERT INTO punchcard.outcomes
                (job_id, account_id, share, captured, status, attempt, started_at, finished_at, output, error)
            SELECT id, account_id, 0, 0, 'succeeded', 1, now(), now(), '1', NULL FROM punchcard.jobs",
        ),
        ("I5", "DELETE FROM punchcard.movements WHERE kind = 'grant'"),
    ] {
        let found = bench
            .admin
            .simple_query(&format!(
                "BEGIN; SET LOCAL session_replication_role = replica; {plant};
                 SELECT count(*) FROM punchcard.audit WHERE invariant = '{invariant}'; ROLLBACK"
            ))
            .await
            .expect(plant)
            .into_iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
        assert_ne!(found.as_deref(), Some("0"), "{plant}");
    }
    bench.assert_audit_is_clean().await;
}
