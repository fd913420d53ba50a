//! What became of a message cannot be recorded at once: somebody holds it, the database refuses it, or is short of something. It
//! keeps no other waiting, and is recorded once it can be, rather than sent again.

use std::time::Duration;

use local::scripted::{Response, ScriptedServer};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{
    help::tick,
    webhooks::{listener, receiver, tell},
};
use crate::support::{Bench, connect};

const TAKEN: &str = "SELECT count(*) FROM punchcard.messages WHERE attempt > 0";
const HEARD: &str = "SELECT count(*) FROM punchcard.deliveries WHERE delivered_at IS NOT NULL";
const HEARD_AT_ONCE: &str =
    "SELECT count(*) FROM punchcard.deliveries WHERE delivered_at IS NOT NULL AND attempt = 1";

/// An account that is told there of so many jobs that are due.
async fn told(bench: &Bench, server: &ScriptedServer, jobs: usize) -> (Uuid, Vec<String>) {
    bench.scripted_kind("").await;
    let account = bench.account(1_000).await;
    tell(bench, account, &server.url("/"), None).await;
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(bench.script(account, json!([{ "do": "done" }])).await);
    }
    (account, ids)
}

/// A tick whose messages are on their way to a receiver that takes a while to answer.
async fn sending(bench: &Bench, messages: i64) -> JoinHandle<Value> {
    let worker = bench.scripted_worker();
    let tick = tokio::spawn(async move { worker.invoke(&json!({})).await.expect("a tick") });
    until(bench, TAKEN, messages).await;
    tick
}

/// Waits for six seconds at most: less than the server lets a statement wait for a lock.
async fn until(bench: &Bench, sql: &str, count: i64) {
    for _ in 0..120 {
        if bench.count(sql).await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} of {count} after six seconds: {sql}", bench.count(sql).await);
}

async fn slow() -> ScriptedServer {
    receiver(|_| Response::bytes(204, "").delay(Duration::from_secs(1))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_somebody_holds_keeps_nothing_waiting_and_is_recorded_later() {
    let (bench, server) = (Bench::new().await, slow().await);
    told(&bench, &server, 5).await;
    let other = bench.account(10).await;
    bench.script(other, json!([{ "do": "done", "seconds": 3 }])).await;
    let tick = sending(&bench, 5).await;
    let holder = connect(&bench.direct_url).await;
    let hold = "BEGIN; SELECT FROM punchcard.outbox ORDER BY id LIMIT 1 FOR NO KEY UPDATE";
    holder.batch_execute(hold).await.unwrap();
    until(&bench, HEARD, 4).await;
    // The worker has one connection: what its jobs came to is recorded by it, too.
    until(&bench, "SELECT count(*) FROM punchcard.outcomes", 6).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(tick.await.unwrap()["webhooks"]["delivered"], 5);
    assert_eq!((bench.count(HEARD_AT_ONCE).await, server.requests().len()), (5, 5), "each is sent once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_database_refuses_takes_no_other_with_it() {
    let (bench, server) = (Bench::new().await, listener().await);
    let (account, jobs) = told(&bench, &server, 12).await;
    bench
        .sql(&format!(
            "CREATE FUNCTION public.refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse_one BEFORE INSERT ON punchcard.deliveries FOR EACH ROW
             WHEN (NEW.job_id = '{}' AND NEW.delivered_at IS NOT NULL) EXECUTE FUNCTION public.refuse_one()",
            jobs[7]
        ))
        .await;
    tick(&bench).await;
    assert_eq!((bench.count(HEARD).await, server.requests().len()), (11, 12));
    assert_eq!(bench.balance(account).await, (880, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_whose_record_collides_with_others_are_recorded_later() {
    let (bench, server) = (Bench::new().await, slow().await);
    told(&bench, &server, 5).await;
    bench.sql("ALTER FUNCTION punchcard.settle_deliveries SET lock_timeout = '100ms'").await;
    let tick = sending(&bench, 5).await;
    let holder = connect(&bench.direct_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE punchcard.outbox IN SHARE MODE").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.count(HEARD).await, server.requests().len()), (0, 5));
    holder.batch_execute("ROLLBACK").await.unwrap();
    tick.await.unwrap();
    assert_eq!((bench.count(HEARD_AT_ONCE).await, server.requests().len()), (5, 5), "each is sent once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_recorded_once_the_server_has_what_it_lacked() {
    let (bench, server) = (Bench::new().await, slow().await);
    told(&bench, &server, 5).await;
    bench
        .sql(
            "CREATE TABLE public.full_disk ();
             INSERT INTO public.full_disk DEFAULT VALUES;
             CREATE FUNCTION public.lack() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 IF EXISTS (SELECT FROM public.full_disk) THEN
                     RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER lack BEFORE INSERT ON punchcard.deliveries FOR EACH ROW
             WHEN (NEW.delivered_at IS NOT NULL) EXECUTE FUNCTION public.lack()",
        )
        .await;
    let tick = sending(&bench, 5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.count(HEARD).await, server.requests().len()), (0, 5));
    bench.sql("DELETE FROM public.full_disk WHERE true").await;
    tick.await.unwrap();
    assert_eq!((bench.count(HEARD_AT_ONCE).await, server.requests().len()), (5, 5), "each is sent once");
    bench.assert_audit_is_clean().await;
}
