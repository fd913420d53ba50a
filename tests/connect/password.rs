//! Passwords that are wrong, elsewhere, or rotated.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Bench, JWT_SECRET, binary, environment, event, secret_environment};

/// A server that refuses everybody with these fields of an ErrorResponse, and counts who comes.
pub(super) async fn refusing(code: &'static str, message: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut startup = [0; 1024];
            let _ = client.read(&mut startup).await;
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let mut error = vec![b'E'];
            error.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
            error.extend(fields.as_bytes());
            let _ = client.write_all(&error).await;
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_sent_once_a_minute_by_each_environment() {
    let refusals = [
        ("28P01", "password authentication failed for user \"u\""),
        ("28000", "role \"u\" does not exist"),
        ("XX000", "(ENOTFOUND) tenant/user u.x not found"),
        (
            "XX000",
            "(ECIRCUITBREAKER) too many authentication failures, new connections are temporarily blocked",
        ),
        ("08P01", "SASL authentication failed"),
    ];
    for (code, message) in refusals {
        let (port, count) = refusing(code, message).await;
        let api =
            Function::new(binary("api"), environment(&format!("postgres://u:wrong@127.0.0.1:{port}/d")));
        for _ in 0..5 {
            let answer = api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap();
            assert_eq!(
                (&answer["statusCode"], answer["headers"]["retry-after"].is_string()),
                (&json!(503), true)
            );
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "{code} {message}");
        let logs = api.logs().await;
        assert!(!logs.contains("wrong"), "the password is in the log: {logs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_down_is_tried_each_time() {
    let (port, count) = refusing("57P03", "the database system is starting up").await;
    let api = Function::new(binary("api"), environment(&format!("postgres://u:p@127.0.0.1:{port}/d")));
    for _ in 0..3 {
        api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap();
    }
    assert!(count.load(Ordering::SeqCst) >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_may_stand_beside_the_url() {
    let bench = Bench::new().await;
    let (before, rest) = bench.url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap();
    let mut env = environment(&format!("{before}://{user}@{host}"));
    env.push(("PGPASSWORD".into(), password.into()));
    let api = Function::new(binary("api"), env);
    assert_eq!(api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap()["statusCode"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_read_again_within_the_same_request() {
    let bench = Bench::new().await;
    let role = format!("rotating_{}", uuid::Uuid::new_v4().simple());
    bench.sql(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'after'")).await;
    let url = |password: &str| {
        let host = bench.direct_url.split_once('@').unwrap().1;
        json!({ "DATABASE_URL": format!("postgres://{role}:{password}@{host}"), "JWT_SECRET": JWT_SECRET })
            .to_string()
    };
    let (stale, fresh, reads) = (url("before"), url("after"), AtomicUsize::new(0));
    let manager = ScriptedServer::start(move |_| {
        let first = reads.fetch_add(1, Ordering::SeqCst) == 0;
        Response::json(200, json!({ "SecretString": if first { &stale } else { &fresh } }))
    });
    let manager = manager.await.unwrap();
    let env = secret_environment("arn:aws:secretsmanager:eu-central-1:1:secret:punchcard", &manager.url("/"));
    let api = Function::new(binary("api"), env);
    for _ in 0..2 {
        assert_eq!(api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap()["statusCode"], 200);
    }
    assert_eq!(manager.requests().len(), 2, "once, and once more after the refusal");
    drop(api);
    bench.sql(&format!("DROP ROLE {role}")).await;
}
