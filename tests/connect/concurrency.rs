//! Several requests at once in one environment, as on Lambda Managed Instances: a few connections, and no more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::App;
use futures_util::future::{Either, join, join_all, select};
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use shared::{
    config::{AuthConfig, Config, WorkerConfig},
    db::{
        Db,
        jobs::{JobOptions, NewJob},
    },
    domain::Deadline,
    secrets::{SecretSource, SecretStore},
};
use uuid::Uuid;

use crate::support::{
    APP, Bench, ISSUER, JWT_SECRET, as_role, bearer, connect, event,
    wire::{Mode, Wire},
};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_holds_up_its_own_connection_alone() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let input = serde_json::value::to_raw_value(&serde_json::json!({"text": "t"})).unwrap();
    // A lock is waited for as long as the test takes.
    bench.sql(&format!("ALTER ROLE {APP} IN DATABASE {} SET lock_timeout = '60s'", bench.database)).await;
    for (connections, held_up, within) in [(1, true, 3), (4, false, 30)] {
        let source =
            SecretSource { database_url: Some(as_role(&bench.direct_url, APP)), ..SecretSource::default() };
        let db = Db::with_connections(Arc::new(SecretStore::new(source)), connections);
        db.oldest_due(soon()).await.unwrap();
        let blocker = connect(&bench.direct_url).await;
        blocker
            .batch_execute(&format!(
                "BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE"
            ))
            .await
            .unwrap();
        let job = NewJob {
            kind: "qr.svg",
            input: &input,
            priority: 0,
            run_at: None,
            options: &JobOptions::default(),
        };
        let buyer = db.enqueue(account, job, None, soon());
        let others = async {
            bench.until_waiting_for_locks(1).await;
            // A connection counts as held up once it has answered nothing for 50 ms.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let many = join_all((0..40).map(|_| db.oldest_due(soon())));
            tokio::time::timeout(Duration::from_secs(within), many).await
        };
        let others = match select(Box::pin(buyer), Box::pin(others)).await {
            Either::Left((bought, _)) => panic!("not held up by the lock: {bought:?}"),
            Either::Right((others, buyer)) => {
                let of_app = "SELECT count(*) FROM pg_stat_activity
                              WHERE datname = current_database() AND usename = 'punchcard_app'";
                let open = bench.count(of_app).await;
                assert!((1..=i64::try_from(connections).unwrap()).contains(&open), "{open} connections");
                blocker.batch_execute("ROLLBACK").await.unwrap();
                buyer.await.expect("bought once the lock is gone");
                others
            }
        };
        assert_eq!(others.is_err(), held_up, "by {connections}");
    }
}

/// A pooler, or a server, that takes no further client: what is open is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_room_for_one_connection_two_make_do_with_it() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let input = serde_json::value::to_raw_value(&json!({"text": "t"})).unwrap();
    let blocker = connect(&bench.direct_url).await;
    let source =
        SecretSource { database_url: Some(as_role(&bench.direct_url, APP)), ..SecretSource::default() };
    let db = Db::with_connections(Arc::new(SecretStore::new(source)), 2);
    db.oldest_due(soon()).await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend'";
    let full = bench.count(open).await;
    bench.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT {full}", bench.database)).await;
    let lock = format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE");
    blocker.batch_execute(&lock).await.unwrap();
    let options = JobOptions::default();
    let job = NewJob { kind: "qr.svg", input: &input, priority: 0, run_at: None, options: &options };
    let other = async {
        bench.until_waiting_for_locks(1).await;
        join(db.webhook(account, soon()), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            blocker.batch_execute("ROLLBACK").await.unwrap();
        })
        .await
    };
    let (bought, (webhook, ())) = join(db.enqueue(account, job, None, soon()), other).await;
    assert!(webhook.expect("by the connection that is open").is_none());
    bought.expect("bought once the lock is gone");
    bench.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT -1", bench.database)).await;
    bench.assert_audit_is_clean_meanwhile().await;
}

/// A pooler that takes the first of two answers for the end gives the connection of a client that dies then to the next, who reads
/// the other: PgBouncer before 1.23 does.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_meant_for_a_client_that_died_is_read_by_no_other() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let input = serde_json::value::to_raw_value(&json!({"text": "t"})).unwrap();
    let blocker = connect(&bench.direct_url).await;
    for _ in 0..5 {
        let lock = format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE");
        blocker.batch_execute(&lock).await.unwrap();
        let dying = bench.db();
        dying.oldest_due(soon()).await.unwrap();
        let options = JobOptions::default();
        let job = NewJob { kind: "qr.svg", input: &input, priority: 0, run_at: None, options: &options };
        let both = join(dying.oldest_due(soon()), dying.enqueue(account, job, None, soon()));
        let both = tokio::time::timeout(Duration::from_millis(500), both).await;
        assert!(both.is_err(), "one is answered, and the other waits for the account");
        drop(dying);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let next = bench.db();
        let released = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            blocker.batch_execute("ROLLBACK").await.unwrap();
        };
        let (webhook, ()) = join(next.webhook(account, soon()), released).await;
        assert!(webhook.unwrap().is_none(), "an answer to another statement");
    }
    bench.assert_audit_is_clean_meanwhile().await;
}

/// Behind an error, too: its end comes a moment later than the error itself, and a pooler takes it for the next one's.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_before_an_answer_has_come_to_its_end() {
    let bench = Bench::new().await;
    let account = bench.account(1).await;
    let input = serde_json::value::to_raw_value(&serde_json::json!({"text": "t"})).unwrap();
    let wire = Wire::to(&bench.url).await;
    let source = SecretSource { database_url: Some(wire.url.clone()), ..SecretSource::default() };
    let db = Db::new(Arc::new(SecretStore::new(source)));
    db.oldest_due(soon()).await.unwrap();
    wire.set(Mode::LateEnd(Duration::from_millis(200)));
    let options = JobOptions::default();
    let buy = |kind| {
        let job = NewJob { kind, input: &input, priority: 0, run_at: None, options: &options };
        db.enqueue(account, job, None, soon())
    };
    for _ in 0..3 {
        assert!(buy("nothing of the kind").await.is_err());
        db.webhook(account, soon()).await.unwrap();
    }
    let (refused, _) = join(buy("nothing of the kind"), db.webhook(account, soon())).await;
    assert!(refused.is_err());
    assert_eq!(wire.early(), 0, "questions before the end of an answer");
}

/// Whoever asked may be gone before the answer comes.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_behind_a_question_whose_asker_is_gone() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let input = serde_json::value::to_raw_value(&serde_json::json!({"text": "t"})).unwrap();
    let blocker = connect(&bench.direct_url).await;
    let lock = format!("BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR UPDATE");
    blocker.batch_execute(&lock).await.unwrap();
    let db = bench.db();
    db.oldest_due(soon()).await.unwrap();
    let options = JobOptions::default();
    let job = NewJob { kind: "qr.svg", input: &input, priority: 0, run_at: None, options: &options };
    let buying = tokio::time::timeout(Duration::from_millis(300), db.enqueue(account, job, None, soon()));
    assert!(buying.await.is_err(), "it waits for the account");
    let next = tokio::time::timeout(Duration::from_secs(4), db.webhook(account, soon())).await;
    assert!(next.expect("answered while the first still waits").unwrap().is_none());
    blocker.batch_execute("ROLLBACK").await.unwrap();
    bench.assert_audit_is_clean_meanwhile().await;
}

/// The API in this process, with one connection for all that it serves at once.
fn api(url: &str) -> App {
    App::new(Config {
        secrets: SecretSource {
            database_url: Some(url.to_owned()),
            jwt_secret: Some(JWT_SECRET.to_owned()),
            ..SecretSource::default()
        },
        log: "info".into(),
        auth: AuthConfig {
            issuer: Some(ISSUER.to_owned()),
            audience: "authenticated".into(),
            jwks_url: None,
            account_claim: None,
            refuse_anonymous: false,
        },
        worker: WorkerConfig {
            public_url: None,
            concurrency: 1,
            linger: Duration::ZERO,
            most_helpers: 0,
            allow_private_targets: false,
        },
        longest_wait: Duration::from_secs(25),
        connections: 1,
        doctor: None,
        wake_queue_url: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_leave_their_connection_to_others() {
    let bench = Bench::new().await;
    let account = bench.account(1).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let id = bench.rows("SELECT id::text FROM punchcard.jobs").await[0].get::<_, String>(0);
    let api = api(&bench.url);
    let path = format!("/api/jobs/{id}?wait=25");
    let waiting = join_all((0..20).map(|_| get(&api, account, &path)));
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        for _ in 0..50 {
            assert_eq!(get(&api, account, "/api/credits").await["held"], 1);
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(15), "fifty answers beside those who wait took {took:?}");
        assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    };
    let (waited, ()) = join(waiting, others).await;
    assert!(waited.iter().all(|job| job["status"] == "succeeded"), "{waited:?}");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

async fn get(api: &App, account: Uuid, path: &str) -> Value {
    let event = event("GET", path, &[("authorization", &bearer(account))], None);
    let event = serde_json::from_value(event).unwrap();
    let answer = api.handle(LambdaEvent::new(event, Context::default())).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}
