//! Why a target refuses an input: in its own words, bounded, to the buyer and nobody else.

use std::time::Duration;

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use uuid::Uuid;

use crate::support::Bench;

async fn error(bench: &Bench, account: Uuid, id: &str) -> (String, String) {
    let job = bench.get(account, &format!("/api/jobs/{id}")).await.body;
    assert_eq!(job["status"], "failed", "{job}");
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    (word(&job["error"]["code"]), word(&job["error"]["message"]))
}

async fn buy(bench: &Bench, account: Uuid, kind: &str) -> String {
    let answer = bench.post(account, json!({ "kind": kind }), None).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_says_of_an_input_is_what_the_buyer_reads() {
    let bench = Bench::new().await;
    let (account, stranger) = (bench.account(100).await, bench.account(100).await);
    let target = ScriptedServer::start(|request| match request.path.as_str() {
        "/problem" => Response::bytes(422, r#"{"title":"Bad","detail":"no face\nin \u0007the picture"}"#)
            .header("content-type", "application/problem+json"),
        "/message" => Response::json(400, json!({ "message": "text: at most 300 characters" })),
        "/text" => Response::bytes(422, "too dark").header("content-type", "text/plain; charset=utf-8"),
        "/long" => Response::bytes(422, "é".repeat(500_000)).header("content-type", "text/plain"),
        "/page" => {
            Response::bytes(422, "<html><body>stack trace</body></html>").header("content-type", "text/html")
        }
        "/hidden-page" => Response::bytes(422, "<html>trace").header("content-type", "text/plain"),
        "/empty" => Response::bytes(422, ""),
        "/missing" => Response::json(404, json!({ "detail": "no such table: users" })),
        _ => Response::json(403, json!({ "detail": "the token sk-123 is not allowed" })),
    })
    .await
    .unwrap();
    let said = |status: u16, why: &str| format!("the target answered {status}{why}");
    let cases = [
        ("problem", "invalid_input", said(422, ": no face in  the picture")),
        ("message", "invalid_input", said(400, ": text: at most 300 characters")),
        ("text", "invalid_input", said(422, ": too dark")),
        ("long", "invalid_input", said(422, &format!(": {}", "é".repeat(500)))),
        ("page", "invalid_input", said(422, "")),
        ("hidden-page", "invalid_input", said(422, "")),
        ("empty", "invalid_input", said(422, "")),
        ("missing", "target_error", said(404, "")),
        ("forbidden", "target_error", said(403, "")),
    ];
    let mut bought = Vec::new();
    for (kind, ..) in &cases {
        bench.http_kind(kind, 10, &target.url(&format!("/{kind}"))).await;
        bought.push(buy(&bench, account, kind).await);
    }
    bench.poller().invoke(&json!({})).await.unwrap();
    for ((kind, code, message), id) in cases.iter().zip(&bought) {
        assert_eq!(error(&bench, account, id).await, ((*code).to_owned(), message.clone()), "{kind}");
        assert_eq!(bench.get(stranger, &format!("/api/jobs/{id}")).await.status, 404, "{kind}");
    }
    assert_eq!(bench.balance(account).await, (100, 0), "it costs what it did before");
    bench.assert_audit_is_clean().await;
}

/// A reason that never ends is not waited for: the status is known, and the job fails for its input, in its
/// one run.
#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_does_not_come_changes_nothing_of_the_verdict() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    for (kind, head) in [
        (
            "stalls",
            "HTTP/1.1 422 Unprocessable Content\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nbecause",
        ),
        (
            "chunks",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbec\r\n",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(head.as_bytes()).await;
                tokio::time::sleep(Duration::from_secs(120)).await;
            }
        });
        bench.http_kind(kind, 10, &url).await;
        bench.sql(&format!("UPDATE punchcard.kinds SET timeout_seconds = 20 WHERE name = '{kind}'")).await;
        let id = buy(&bench, account, kind).await;
        bench.poller().invoke(&json!({})).await.unwrap();
        let (code, message) = error(&bench, account, &id).await;
        assert_eq!(code, "invalid_input", "{kind}");
        assert!(message.starts_with("the target answered 4") && !message.contains(':'), "{kind}: {message}");
        assert_eq!(bench.balance(account).await, (10, 0));
    }
    bench.assert_audit_is_clean().await;
}
