//! Races of those who are at work outside, as races, 200 times each: whoever wins, it is one of them, and the money is the
//! winner's.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use shared::{
    db::{
        Db, DbError,
        callbacks::CallBack,
        webhooks::{Delivery, Recorded, Round, Sent},
    },
    domain::{ErrorCode, JobError, Lease, Status, Verdict},
};
use uuid::Uuid;

use super::races::{PRICE, TIMES, buy, claim, done, is_refused, race, soon, track};
use crate::support::{Bench, connect};

const A_MINUTE: Duration = Duration::from_secs(60);

fn success() -> CallBack {
    CallBack::Done { output: RawValue::NULL.to_owned(), used: None }
}

fn failure() -> CallBack {
    CallBack::Final(JobError::new(ErrorCode::TargetError, "no"))
}

fn again() -> CallBack {
    CallBack::Err(JobError::new(ErrorCode::TargetError, "no"))
}

/// A leased job, and its account, whose credits it holds.
async fn leased(bench: &Bench, db: &Db) -> (Lease, Uuid) {
    let account = bench.account(PRICE).await;
    buy(bench, account).await;
    (claim(db).await, account)
}

/// One that waits for a call back.
async fn waiting(bench: &Bench, db: &Db) -> (Lease, Uuid) {
    let (lease, account) = leased(bench, db).await;
    let wait = Verdict::Wait { within: A_MINUTE };
    assert_eq!(db.settle(&[(lease.clone(), wait)], soon()).await.unwrap().jobs.len(), 1);
    (lease, account)
}

/// The same, and its time is up within the race.
async fn nearly_overdue(bench: &Bench, db: &Db, time: usize) -> (Lease, Uuid) {
    let (lease, account) = waiting(bench, db).await;
    let micros = 1_000 + 500 * (time % 9);
    bench
        .sql(&format!(
            "UPDATE punchcard.queue SET waiting_until = clock_timestamp() + interval '{micros} microseconds'
             WHERE job_id = '{}'",
            lease.job_id
        ))
        .await;
    (lease, account)
}

/// Whoever takes back what has lapsed does so again and again; answers what became of the jobs.
async fn rescue(db: Arc<Db>) -> Vec<Status> {
    let mut rescued = Vec::new();
    for _ in 0..4 {
        rescued.extend(
            db.rescue(10, &[], soon()).await.unwrap().0.into_iter().map(|job| job.status.expect("free")),
        );
    }
    rescued
}

/// The same until something was taken back: who was refused may hold the row for a moment longer.
async fn rescue_one(db: &Arc<Db>, mut rescued: Vec<Status>) -> Vec<Status> {
    for _ in 0..1_000 {
        if !rescued.is_empty() {
            break;
        }
        rescued = rescue(Arc::clone(db)).await;
    }
    rescued
}

async fn status(bench: &Bench, job: Uuid) -> String {
    bench.rows(&format!("SELECT status FROM punchcard.jobs_now WHERE id = '{job}'")).await[0].get(0)
}

async fn assert_sound(bench: &Bench) {
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(bench.count(deadlocks).await, 0);
    bench.assert_audit_is_clean().await;
}

/// Nobody claims or takes back what is left of this race in the next one.
async fn put_off(bench: &Bench) {
    bench.sql("UPDATE punchcard.queue SET run_at = run_at + interval '1 hour', waiting_until = NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_against_its_deadline_has_one_winner() {
    let (bench, outside, rescuer) = track().await;
    let (mut in_time, mut overdue) = (0, 0);
    for time in 0..TIMES {
        let (lease, account) = nearly_overdue(&bench, &outside, time).await;
        let (job, token, db) = (lease.job_id, lease.lease_token, Arc::clone(&outside));
        let call = async move { db.call_back(job, token, &success(), soon()).await };
        let (called, rescued) = race(time, call, rescue(Arc::clone(&rescuer))).await;
        if let Ok(called) = &called {
            assert_eq!((called.status, rescued.len()), (Status::Succeeded, 0));
            assert_eq!(bench.balance(account).await, (0, 0), "captured once");
            in_time += 1;
            continue;
        }
        // Taken back before it, or by the next tick.
        assert!(matches!(called, Err(DbError::Refused { status: 409, .. })), "{called:?}");
        assert_eq!(rescue_one(&rescuer, rescued).await, [Status::Failed]);
        assert_eq!(bench.balance(account).await, (PRICE, 0), "released once");
        overdue += 1;
    }
    assert!(in_time > 0 && overdue > 0, "a race: {in_time} and {overdue}");
    assert_sound(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_call_backs_with_one_token_one_counts() {
    let (bench, one, other) = track().await;
    let (mut successes, mut failures) = (0, 0);
    for time in 0..TIMES {
        let (lease, account) = waiting(&bench, &one).await;
        let (job, token) = (lease.job_id, lease.lease_token);
        let (first, second) = (Arc::clone(&one), Arc::clone(&other));
        let (succeeded, failed) =
            race(time, async move { first.call_back(job, token, &success(), soon()).await }, async move {
                second.call_back(job, token, &failure(), soon()).await
            })
            .await;
        assert_ne!(is_refused(&succeeded, "callback_used"), is_refused(&failed, "callback_used"));
        let (word, balance) = if succeeded.is_ok() { ("succeeded", (0, 0)) } else { ("failed", (PRICE, 0)) };
        assert_eq!(status(&bench, job).await, word);
        assert_eq!(bench.balance(account).await, balance, "once");
        (successes, failures) =
            (successes + usize::from(succeeded.is_ok()), failures + usize::from(failed.is_ok()));
    }
    assert!(successes > 0 && failures > 0, "a race: {successes} and {failures}");
    assert_sound(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_against_cancel_has_one_winner() {
    let (bench, outside, canceler) = track().await;
    let (mut succeeded, mut canceled) = (0, 0);
    for time in 0..TIMES {
        let (lease, account) = waiting(&bench, &outside).await;
        let (job, token) = (lease.job_id, lease.lease_token);
        let (db, other) = (Arc::clone(&outside), Arc::clone(&canceler));
        let (called, stopped) =
            race(time, async move { db.call_back(job, token, &success(), soon()).await }, async move {
                other.cancel(job, Some(account), soon()).await
            })
            .await;
        assert_ne!(is_refused(&called, "callback_used"), is_refused(&stopped, "not_cancelable"));
        let (word, balance) = if called.is_ok() { ("succeeded", (0, 0)) } else { ("canceled", (PRICE, 0)) };
        assert_eq!(status(&bench, job).await, word);
        assert_eq!(bench.balance(account).await, balance, "paid, or not");
        (succeeded, canceled) =
            (succeeded + usize::from(called.is_ok()), canceled + usize::from(stopped.is_ok()));
    }
    assert!(succeeded > 0 && canceled > 0, "a race: {succeeded} and {canceled}");
    assert_sound(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_ends_the_same_before_and_after_its_worker_says_that_it_waits() {
    let (bench, outside, worker) = track().await;
    let (mut before, mut after) = (0, 0);
    for time in 0..TIMES {
        let (lease, account) = leased(&bench, &worker).await;
        let (job, token) = (lease.job_id, lease.lease_token);
        let (db, other) = (Arc::clone(&outside), Arc::clone(&worker));
        let succeeds = time % 4 < 2;
        let (called, settled) = race(
            time,
            async move {
                let said = if succeeds { success() } else { again() };
                db.call_back(job, token, &said, soon()).await.unwrap().status
            },
            async move {
                let wait = Verdict::Wait { within: A_MINUTE };
                other.settle(&[(lease, wait)], soon()).await.unwrap().jobs.len()
            },
        )
        .await;
        let (now, word, balance) = if succeeds {
            (Status::Succeeded, "succeeded", (0, 0))
        } else {
            (Status::Queued, "queued", (0, PRICE))
        };
        assert_eq!((called, status(&bench, job).await.as_str()), (now, word));
        assert_eq!(bench.balance(account).await, balance);
        let left = format!(
            "SELECT count(*) FROM punchcard.queue WHERE job_id = '{job}' AND (attempt <> 1 OR waiting_until IS NOT NULL)"
        );
        assert_eq!(bench.count(&left).await, 0, "one attempt spent, nobody waited for");
        (before, after) = (before + usize::from(settled == 0), after + settled);
        put_off(&bench).await;
    }
    assert!(before > 0 && after > 0, "a race: {before} and {after}");
    assert_sound(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_back_to_try_again_against_its_deadline_has_one_winner() {
    let (bench, outside, rescuer) = track().await;
    let (mut in_time, mut overdue) = (0, 0);
    for time in 0..TIMES {
        let (lease, account) = nearly_overdue(&bench, &outside, time).await;
        let (job, token, db) = (lease.job_id, lease.lease_token, Arc::clone(&outside));
        let call = async move { db.call_back(job, token, &again(), soon()).await };
        let (called, rescued) = race(time, call, rescue(Arc::clone(&rescuer))).await;
        if let Ok(called) = &called {
            assert_eq!((called.status, rescued.len()), (Status::Queued, 0));
            assert_eq!(bench.balance(account).await, (0, PRICE), "still held");
            in_time += 1;
        } else {
            assert!(matches!(called, Err(DbError::Refused { status: 409, .. })), "{called:?}");
            assert_eq!(rescue_one(&rescuer, rescued).await, [Status::Failed]);
            assert_eq!(bench.balance(account).await, (PRICE, 0), "released once");
            overdue += 1;
        }
        put_off(&bench).await;
    }
    assert!(in_time > 0 && overdue > 0, "a race: {in_time} and {overdue}");
    assert_sound(&bench).await;
}

/// The messages of a job that ran and ended, for a webhook of its own.
async fn messages(bench: &Bench, db: &Db) -> Vec<Delivery> {
    let account = bench.account(PRICE).await;
    let webhook = r#"{"webhook": {"url": "https://own.test/", "events": ["job.running", "job.succeeded"]}}"#;
    bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'race', p_options => '{webhook}')")).await;
    let lease = claim(db).await;
    db.settle(&[(lease, done())], soon()).await.unwrap();
    take(db).await
}

async fn take(db: &Db) -> Vec<Delivery> {
    db.claim_deliveries(&Round::of(10, A_MINUTE), soon()).await.unwrap().deliveries
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_would_send_a_message_one_has_it_and_what_the_other_says_does_not_count() {
    let (bench, one, other) = track().await;
    let (mut firsts, mut seconds) = (0, 0);
    for time in 0..TIMES {
        let stale = messages(&bench, &one).await;
        assert_eq!(stale.len(), 2);
        bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
        let (db, rival) = (Arc::clone(&one), Arc::clone(&other));
        let (mine, theirs) =
            race(time, async move { take(&db).await }, async move { take(&rival).await }).await;
        assert_eq!(mine.len() + theirs.len(), 2, "each is sent by one of them");
        (firsts, seconds) = (firsts + mine.len(), seconds + theirs.len());
        let heard = |deliveries: Vec<Delivery>| -> Vec<_> {
            deliveries.into_iter().map(|delivery| (delivery, Sent::Delivered)).collect()
        };
        let (late, now) = (heard(stale), heard([mine, theirs].into_iter().flatten().collect()));
        let (db, rival) = (Arc::clone(&one), Arc::clone(&other));
        let recorded =
            race(time, async move { db.settle_deliveries(&late, soon()).await.unwrap().count }, async move {
                rival.settle_deliveries(&now, soon()).await.unwrap().count
            })
            .await;
        assert_eq!(recorded, (0, 2), "the second sending counts, whoever says so first");
    }
    assert!(firsts > 0 && seconds > 0, "a race: {firsts} and {seconds}");
    assert_sound(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_hear_at_once_that_a_receiver_is_gone_neither_waits_for_the_other() {
    let (bench, one, other) = track().await;
    for time in 0..TIMES {
        let mut mine = messages(&bench, &one).await;
        let theirs = mine.split_off(1);
        let gone = |deliveries: Vec<Delivery>| -> Vec<_> {
            deliveries.into_iter().map(|delivery| (delivery, Sent::Gone("410".into()))).collect()
        };
        let (mine, theirs) = (gone(mine), gone(theirs));
        let (db, rival) = (Arc::clone(&one), Arc::clone(&other));
        race(time, async move { db.settle_deliveries(&mine, soon()).await.unwrap().count }, async move {
            rival.settle_deliveries(&theirs, soon()).await.unwrap().count
        })
        .await;
        let left = "SELECT count(*) FROM punchcard.outbox";
        assert_eq!(bench.count(left).await, 0, "neither is sent again");
    }
    // As if the other one were always at it.
    let mut mine = messages(&bench, &one).await;
    let theirs = mine.split_off(1).remove(0);
    let holder = connect(&bench.direct_url).await;
    let lock = format!("BEGIN; SELECT FROM punchcard.outbox WHERE id = '{}' FOR NO KEY UPDATE", theirs.id);
    holder.batch_execute(&lock).await.unwrap();
    let gone = [(mine.remove(0), Sent::Gone("410".into()))];
    assert_eq!(one.settle_deliveries(&gone, soon()).await.unwrap().count, 1, "at once");
    let held = Recorded { count: 0, out_of_reach: vec![theirs.id] };
    let theirs = [(theirs, Sent::Delivered)];
    assert_eq!(one.settle_deliveries(&theirs, soon()).await.unwrap(), held, "at once, too");
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(one.settle_deliveries(&theirs, soon()).await.unwrap().count, 1, "once they let go of it");
    assert_sound(&bench).await;
}
