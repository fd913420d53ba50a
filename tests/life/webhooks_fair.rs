//! What one account makes of its webhooks delays no other's: messages are taken in turn by account, receivers are told apart by the
//! address that is connected to, and none gets all the places there are.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::Bench;

/// Messages are due that tell these URLs of jobs that were canceled before they ran: one credit serves for all of them.
async fn cancel(bench: &Bench, account: Uuid, urls: &[String]) {
    bench
        .sql(&format!(
            "SELECT punchcard.cancel(e.job_id)
             FROM unnest('{{{}}}'::text[]) WITH ORDINALITY u (url, n),
                 LATERAL (SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', json_build_object('n', u.n),
                     p_run_at => now() + interval '1 day',
                     p_options => jsonb_build_object('webhook', jsonb_build_object('url', u.url)))) e",
            urls.join(",")
        ))
        .await;
}

/// One that never answers, and how often it was asked.
async fn silent() -> (ScriptedServer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Response::bytes(200, "").delay(Duration::from_secs(3_600))
    });
    (server.await.unwrap(), asked)
}

/// One that answers at once, and what the other had been asked by then, each time.
async fn quick(other: &Arc<AtomicUsize>) -> (ScriptedServer, Arc<std::sync::Mutex<Vec<usize>>>) {
    let by_then = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, other) = (Arc::clone(&by_then), Arc::clone(other));
    let server = ScriptedServer::start(move |_| {
        noted.lock().unwrap().push(other.load(Ordering::SeqCst));
        Response::bytes(204, "")
    });
    (server.await.unwrap(), by_then)
}

/// So many ways to write the loopback's address in a URL.
fn spellings(port: u16, count: usize) -> Vec<String> {
    let numbers = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ];
    let letters = (0..512_u32).flat_map(|bits| {
        let name: String = "localhost"
            .chars()
            .enumerate()
            .map(|(n, letter)| if bits >> n & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        [name.clone(), format!("{name}.")]
    });
    let hosts: BTreeSet<String> = numbers.map(str::to_owned).into_iter().chain(letters).take(count).collect();
    assert_eq!(hosts.len(), count);
    hosts.into_iter().map(|host| format!("http://{host}:{port}/hook")).collect()
}

fn port(server: &ScriptedServer) -> u16 {
    server.url("").rsplit(':').next().unwrap().parse().unwrap()
}

fn said(summary: &Value) -> (u64, u64, u64) {
    let count = |word: &str| summary["webhooks"][word].as_u64().unwrap();
    (count("delivered"), count("retried"), count("given_up"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_silent_host_in_300_spellings_delays_nobody_else() {
    let bench = Bench::new().await;
    let (silent, asked) = silent().await;
    let (quick, by_then) = quick(&asked).await;
    let (loud, other) = (bench.account(1).await, bench.account(1).await);
    cancel(&bench, loud, &spellings(port(&silent), 300)).await;
    cancel(&bench, other, &[quick.url("/")]).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    let (delivered, retried, given_up) = said(&summary);
    assert!(delivered == 1 && retried >= 300 && given_up == 0, "none is left for the next one: {summary}");
    let before = by_then.lock().unwrap().clone();
    assert!(before.len() == 1 && before[0] <= 30, "the 300 do not go first: {before:?}");
    // Those that were on their way at first, and one or two before it is clear that it is one who does not answer.
    let sent = asked.load(Ordering::SeqCst);
    assert!(sent <= 40, "{sent} were sent to one who does not answer");
    assert_eq!((bench.balance(loud).await, bench.balance(other).await), ((1, 0), (1, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_300_silent_receivers_delays_nobody_else_and_loses_no_message() {
    let bench = Bench::new().await;
    // Every address of the loopback's network: what is one machine's may be any number of them.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let (quick, by_then) = quick(&asked).await;
    let (loud, other) = (bench.account(1).await, bench.account(1).await);
    let address = |n: u8| SocketAddr::from(([127, 1, n / 100, n % 100 + 1], port));
    let urls: Vec<String> = (0..250).chain(0..50).map(|n| format!("http://{}/{n}", address(n))).collect();
    cancel(&bench, loud, &urls).await;
    cancel(&bench, other, &[quick.url("/")]).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    let (delivered, retried, given_up) = said(&summary);
    let sent = asked.load(Ordering::SeqCst);
    assert_eq!((delivered, given_up), (1, 0), "{summary}");
    assert!(retried as usize == sent && sent <= 60, "{sent} were sent until it was clear: {summary}");
    let before = by_then.lock().unwrap().clone();
    assert!(before.len() == 1 && before[0] <= 30, "the 300 do not go first: {before:?}");
    // The rest is sent by whoever comes next, and still is nobody's burden.
    cancel(&bench, other, &[quick.url("/again")]).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    let before = by_then.lock().unwrap().clone();
    assert!(before.len() == 2 && before[1] <= sent + 30, "{before:?} {summary}");
    assert!(asked.load(Ordering::SeqCst) > sent, "{summary}");
    silent.abort();
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_many_accounts_that_is_down_takes_no_place_of_others_and_costs_no_attempt() {
    let bench = Bench::new().await;
    let (silent, asked) = silent().await;
    let (quick, by_then) = quick(&asked).await;
    let urls = [silent.url("/1"), silent.url("/2")];
    for _ in 0..60 {
        cancel(&bench, bench.account(1).await, &urls).await;
    }
    let other = bench.account(1).await;
    cancel(&bench, other, &[quick.url("/")]).await;
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    let before = by_then.lock().unwrap().clone();
    assert!(before.len() == 1 && before[0] <= 40, "some places are never a single receiver's: {before:?}");
    assert_eq!(said(&summary).0, 1, "{summary}");
    // Who was not sent, for no fault of theirs, has all attempts left.
    let untried = "SELECT n.account_id, n.id::text FROM punchcard.jobs_now n WHERE n.account_id <> ";
    let (mut tried, mut put_off) = (0, 0);
    for row in bench.rows(&format!("{untried}'{other}'")).await {
        let path = format!("/api/jobs/{}/deliveries", row.get::<_, String>(1));
        let shown = bench.get(row.get(0), &path).await.body["data"][0].clone();
        match shown["attempt"].as_i64().unwrap() {
            0 => {
                assert!(shown["next_attempt_at"].is_string() && shown["error"].is_null(), "{shown}");
                put_off += 1;
            }
            1 => {
                assert_eq!(shown["error"], "no answer in time", "{shown}");
                tried += 1;
            }
            _ => panic!("{shown}"),
        }
    }
    assert!(put_off > 0, "{tried} tried, {put_off} not");
    assert_eq!(tried, said(&summary).1, "{summary}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_accounts_have_their_turn_however_many_messages_one_of_them_has() {
    let bench = Bench::new().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let busy = ScriptedServer::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Response::bytes(204, "").delay(Duration::from_millis(200))
    });
    let busy = busy.await.unwrap();
    let (quick, by_then) = quick(&asked).await;
    let urls: Vec<String> = (0..500).map(|n| busy.url(&format!("/{n}"))).collect();
    cancel(&bench, bench.account(1).await, &urls).await;
    for n in 0..30 {
        cancel(&bench, bench.account(1).await, &[quick.url(&format!("/{n}"))]).await;
    }
    let summary = bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(said(&summary), (530, 0, 0), "all of them, in one tick: {summary}");
    let before = by_then.lock().unwrap().clone();
    assert!(before.len() == 30 && before.iter().all(|before| *before <= 100), "{before:?}");
    bench.assert_audit_is_clean().await;
}
