//! Enqueue, cancel and retry inside a transaction of the team's own.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::help::{books, tick};
use crate::support::{Bench, OWNER, as_role, claims, connect};

const ORDERS: &str = "CREATE TABLE public.orders (id bigint, user_id uuid, code text)";

/// The examples of the documentation, as they stand there.
fn examples() -> Vec<&'static str> {
    let page = include_str!("../../docs/LIFE_OF_A_JOB.md");
    page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("its end")).collect()
}

/// The schema's owner, as the team's application connects.
async fn team(bench: &Bench) -> Client {
    bench.sql(&format!("GRANT CREATE, USAGE ON SCHEMA public TO {OWNER}")).await;
    connect(&as_role(&bench.direct_url, OWNER)).await
}

/// A bench whose team has orders, the trigger and the function, and users that may call them.
async fn shop() -> Bench {
    let bench = Bench::new().await;
    let team = team(&bench).await;
    team.batch_execute(ORDERS).await.unwrap();
    let [trigger, function] = examples().try_into().expect("two examples");
    team.batch_execute(trigger).await.expect("the trigger as it stands");
    team.batch_execute(function).await.expect("the function as it stands");
    team.batch_execute("GRANT SELECT, INSERT ON public.orders TO authenticated").await.unwrap();
    bench
}

/// As PostgREST does it: a transaction as the user, which is rolled back if anything in it is refused.
async fn as_user(bench: &Bench, user: Uuid, sql: &str) -> Result<(), String> {
    let claims = claims(user).to_string();
    let begin = format!(
        "BEGIN; SELECT set_config('request.jwt.claims', '{claims}', true); SET LOCAL ROLE authenticated"
    );
    bench.admin.batch_execute(&begin).await.expect("a user");
    let done = bench.admin.batch_execute(sql).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    bench.admin.batch_execute(end).await.expect(end);
    done.map_err(|error| {
        let error = error.as_db_error().expect("refused by the database");
        format!("{} {}", error.code().code(), error.message())
    })
}

fn order(id: i64, user: Uuid) -> String {
    format!("INSERT INTO public.orders VALUES ({id}, '{user}', 'code {id}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bought_in_a_transaction_is_there_once_it_commits() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(30).await;
    let team = team(&bench).await;
    let before = books(&bench).await;
    let buy = format!(
        "BEGIN; SELECT punchcard.enqueue('{account}', 'test.scripted', '{{\"script\":[{{\"do\":\"done\"}}]}}',
             p_options => '{{\"tags\":[\"mine\"]}}') FROM generate_series(1, 2)"
    );
    team.batch_execute(&buy).await.unwrap();
    assert_eq!(tick(&bench).await["claimed"], 0, "nobody sees it yet");
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.balance(account).await, (30, 0));
    team.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(books(&bench).await, before, "neither job nor hold nor entry nor label");

    team.batch_execute(&buy).await.unwrap();
    team.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.balance(account).await, (10, 20));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'hold'").await, 2);
    let found = bench.get(account, "/api/jobs?label=mine").await.body;
    assert_eq!(found["data"].as_array().unwrap().len(), 2);
    assert_eq!(tick(&bench).await["succeeded"], 2);
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_takes_the_transaction_with_it_and_a_savepoint_saves_it() {
    let bench = Bench::new().await;
    let account = bench.account(15).await;
    let team = team(&bench).await;
    let before = books(&bench).await;
    let buy = |kind: &str| format!("SELECT punchcard.enqueue('{account}', '{kind}')");
    team.batch_execute(&format!("BEGIN; {}", buy("unserved"))).await.unwrap();
    let refused = team.batch_execute(&buy("no.such")).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "PT422");
    team.batch_execute("COMMIT").await.unwrap();
    assert_eq!(books(&bench).await, before, "all or nothing");

    team.batch_execute(&format!("BEGIN; {}; SAVEPOINT s", buy("unserved"))).await.unwrap();
    let (second, third) = (buy("unserved"), buy("echo.http"));
    let refused = team.batch_execute(&format!("{second}; {third}")).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "PT402");
    team.batch_execute("ROLLBACK TO s; COMMIT").await.unwrap();
    assert_eq!(bench.balance(account).await, (10, 5));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 1);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_retry_go_with_their_transaction() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(20).await;
    let team = team(&bench).await;
    let failed = bench.script(account, json!([{ "do": "final" }])).await;
    assert_eq!(tick(&bench).await["failed"], 1);
    let queued = bench.script(account, json!([{ "do": "done" }])).await;
    let before = books(&bench).await;
    let both = format!(
        "BEGIN; SELECT punchcard.cancel('{queued}', '{account}'); SELECT punchcard.retry('{failed}', '{account}')"
    );
    team.batch_execute(&both).await.unwrap();
    assert_eq!(bench.job(account, &queued).await["status"], "queued");
    assert_eq!(tick(&bench).await["claimed"], 0, "one is being canceled, the other not there yet");
    team.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.job(account, &failed).await["retried_as"], Value::Null);

    // What the cancel releases, the retry may spend.
    bench.enqueue(account, "unserved", 2).await;
    assert_eq!(bench.balance(account).await, (0, 20));
    team.batch_execute(&both).await.unwrap();
    team.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.balance(account).await, (0, 20));
    assert_eq!(bench.job(account, &queued).await["status"], "canceled");
    assert!(bench.job(account, &failed).await["retried_as"].is_string());
    // Another account's are not there.
    let other = bench.account(100).await;
    for function in ["cancel", "retry"] {
        let foreign =
            team.batch_execute(&format!("SELECT punchcard.{function}('{failed}', '{other}')")).await;
        assert_eq!(foreign.unwrap_err().code().unwrap().code(), "PT404");
    }
    assert_eq!(tick(&bench).await["failed"], 1);
    assert_eq!(bench.balance(account).await, (10, 10));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_buys_its_job_and_without_credits_there_is_no_order() {
    let bench = shop().await;
    let user = bench.account(2).await;
    as_user(&bench, user, &order(1, user)).await.unwrap();
    as_user(&bench, user, &order(2, user)).await.unwrap();
    assert_eq!(bench.balance(user).await, (0, 2));
    let refused = as_user(&bench, user, &order(3, user)).await.unwrap_err();
    assert_eq!(refused, "PT402 insufficient_credits");
    let many = format!("{}; {}", order(4, Uuid::new_v4()), order(5, user));
    assert_eq!(as_user(&bench, user, &many).await.unwrap_err(), "PT402 insufficient_credits");
    assert_eq!(bench.count("SELECT count(*) FROM public.orders").await, 2);
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 2);

    let job = bench.get(user, "/api/jobs?include=input&label=order=2").await.body["data"][0].clone();
    assert_eq!((&job["kind"], &job["input"]), (&json!("qr.svg"), &json!({ "text": "code 2" })));
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(bench.job(user, job["id"].as_str().unwrap()).await["status"], "succeeded");
    assert_eq!(bench.balance(user).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_rolled_back_leaves_no_job() {
    let bench = shop().await;
    let user = bench.account(5).await;
    let before = books(&bench).await;
    let sql = format!("{}; SELECT 1 / 0", order(1, user));
    assert_eq!(as_user(&bench, user, &sql).await.unwrap_err(), "22012 division by zero");
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.count("SELECT count(*) FROM public.orders").await, 0);
    // Nor does its key stay taken.
    as_user(&bench, user, &order(1, user)).await.unwrap();
    assert_eq!(bench.balance(user).await, (4, 1));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_its_job_go_together_or_neither_does() {
    let bench = shop().await;
    let (user, other) = (bench.account(5).await, bench.account(5).await);
    as_user(&bench, user, &order(1, user)).await.unwrap();
    as_user(&bench, user, &order(2, user)).await.unwrap();
    let drop = |id: i64| format!("SELECT public.drop_order({id})");
    let before = books(&bench).await;
    assert_eq!(as_user(&bench, other, &drop(1)).await.unwrap_err(), "P0001 no such order");
    assert_eq!(as_user(&bench, user, &drop(3)).await.unwrap_err(), "P0001 no such order");
    assert_eq!(books(&bench).await, before);
    assert_eq!(bench.balance(user).await, (3, 2));

    as_user(&bench, user, &drop(1)).await.unwrap();
    assert_eq!(bench.balance(user).await, (4, 1), "released");
    assert_eq!(bench.count("SELECT min(id) FROM public.orders").await, 2);
    let job = bench.get(user, "/api/jobs?label=order=1").await.body["data"][0].clone();
    assert_eq!(job["status"], "canceled");
    assert_eq!(as_user(&bench, user, &drop(1)).await.unwrap_err(), "P0001 no such order");

    // What is drawn already cannot be given back, and its order stays.
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(as_user(&bench, user, &drop(2)).await.unwrap_err(), "PT409 not_cancelable");
    assert_eq!(bench.count("SELECT count(*) FROM public.orders").await, 1);
    assert_eq!(bench.balance(user).await, (4, 0));
    // Users call what they were given, and nothing of ours.
    let direct = as_user(&bench, user, &format!("SELECT punchcard.cancel('{}', NULL)", Uuid::new_v4())).await;
    assert!(direct.unwrap_err().starts_with("42501"), "permission denied");
    bench.assert_audit_is_clean().await;
}
