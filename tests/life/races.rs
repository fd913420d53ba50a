//! Races, run as races, 200 times each: whoever wins, it is one of them, and the money is the winner's.

use std::{sync::Arc, time::Duration};

use serde_json::{json, value::RawValue};
use shared::{
    db::{
        Db, DbError,
        life::{FailedFilter, RedrivePace},
        queue::{Capacity, Cursor},
    },
    domain::{Deadline, ErrorCode, JobError, Lease, Verdict},
};
use tokio::{sync::Barrier, task::JoinSet};
use uuid::Uuid;

use crate::support::{Bench, connect};

pub const TIMES: usize = 200;
pub const PRICE: i64 = 10;

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub fn done() -> Verdict {
    Verdict::Complete { output: RawValue::NULL.to_owned(), used: None }
}

fn error() -> JobError {
    JobError::new(ErrorCode::HandlerError, "no")
}

pub async fn claim(db: &Db) -> Lease {
    let minute = Duration::from_secs(60);
    let capacity = Capacity {
        limit: 1,
        named: &[],
        woken: false,
        rust_kinds: &["race"],
        http: false,
        budget: minute,
        lease: minute,
    };
    db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases.remove(0)
}

/// A database with the kind `race`, and two connections of whoever races.
pub async fn track() -> (Bench, Arc<Db>, Arc<Db>) {
    let bench = Bench::new().await;
    bench.sql(&format!("INSERT INTO punchcard.kinds (name, price) VALUES ('race', {PRICE})")).await;
    let (one, other) = (Arc::new(bench.db()), Arc::new(bench.db()));
    (bench, one, other)
}

pub async fn buy(bench: &Bench, account: Uuid) -> Uuid {
    let enqueue = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'race')");
    bench.rows(&enqueue).await[0].get(0)
}

/// A job that has failed, and its account, which has credits for one more.
async fn failed(bench: &Bench, db: &Db) -> (Uuid, Uuid) {
    let account = bench.account(PRICE).await;
    let job = buy(bench, account).await;
    let lease = claim(db).await;
    db.settle(&[(lease, Verdict::Fail(error()))], soon()).await.unwrap();
    (job, account)
}

/// Both at once; which one starts a little later changes from time to time.
pub async fn race<A: Send + 'static, B: Send + 'static>(
    time: usize,
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let line = Arc::new(Barrier::new(2));
    let pause = Duration::from_micros(100 * (time as u64 / 2 % 8));
    let start = move |late: bool| {
        let line = Arc::clone(&line);
        async move {
            line.wait().await;
            if late {
                tokio::time::sleep(pause).await;
            }
        }
    };
    let (first, second) = (start(time.is_multiple_of(2)), start(!time.is_multiple_of(2)));
    let one = tokio::spawn(async move {
        first.await;
        one.await
    });
    let other = tokio::spawn(async move {
        second.await;
        other.await
    });
    (one.await.unwrap(), other.await.unwrap())
}

pub fn is_refused<T: std::fmt::Debug>(result: &Result<T, DbError>, word: &str) -> bool {
    match result {
        Ok(_) => false,
        Err(DbError::Refused { code, .. }) if code == word => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_against_success_has_one_winner() {
    let (bench, worker, canceler) = track().await;
    let (mut succeeded, mut told) = (0, 0);
    for time in 0..TIMES {
        let account = bench.account(PRICE).await;
        let job = buy(&bench, account).await;
        let lease = claim(&worker).await;
        let (db, other) = (Arc::clone(&worker), Arc::clone(&canceler));
        let (settled, canceled) = race(
            time,
            async move { db.settle(&[(lease, done())], soon()).await.unwrap().jobs.len() },
            async move { other.cancel(job, Some(account), soon()).await },
        )
        .await;
        assert_eq!(settled, 1, "a worker that is done has done it, told to stop or not");
        // Either it was too late, or the worker was told too late.
        succeeded += usize::from(is_refused(&canceled, "not_cancelable"));
        told += usize::from(canceled.is_ok());
        assert_eq!(bench.balance(account).await, (0, 0), "paid once");
    }
    assert!(succeeded > 0 && told > 0, "a race: {succeeded} and {told}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_against_a_claim_has_one_winner() {
    let (bench, worker, canceler) = track().await;
    let (mut canceled, mut stopped) = (0, 0);
    for time in 0..TIMES {
        let account = bench.account(PRICE).await;
        let job = buy(&bench, account).await;
        let (db, other) = (Arc::clone(&worker), Arc::clone(&canceler));
        let (settled, _) = race(
            time,
            async move {
                let minute = Duration::from_secs(60);
                let capacity = Capacity {
                    limit: 1,
                    named: &[],
                    woken: false,
                    rust_kinds: &["race"],
                    http: false,
                    budget: minute,
                    lease: minute,
                };
                let leases = db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases;
                let verdicts: Vec<_> = leases
                    .into_iter()
                    .map(|lease| (lease, Verdict::Retry { delay: Duration::ZERO, error: error() }))
                    .collect();
                db.settle(&verdicts, soon()).await.unwrap().jobs.len()
            },
            async move { other.cancel(job, Some(account), soon()).await.unwrap() },
        )
        .await;
        if settled == 0 {
            canceled += 1
        } else {
            stopped += 1
        }
        // Claimed, tried, queued again and then canceled; told while it ran; or never started.
        let status = format!("SELECT status FROM punchcard.jobs_now WHERE id = '{job}'");
        assert_eq!(bench.rows(&status).await[0].get::<_, String>(0), "canceled");
        assert_eq!(bench.balance(account).await, (PRICE, 0));
    }
    assert!(canceled > 0 && stopped > 0, "a race: {canceled} and {stopped}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_against_redrive_buys_it_once() {
    let (bench, by_hand, in_bulk) = track().await;
    let (mut by_hands, mut in_bulks) = (0, 0);
    for time in 0..TIMES {
        let (job, account) = failed(&bench, &by_hand).await;
        let (db, other) = (Arc::clone(&by_hand), Arc::clone(&in_bulk));
        let filter =
            FailedFilter { kind: Some("race".into()), account_id: Some(account), ..FailedFilter::default() };
        let pace = RedrivePace { limit: 10, per_second: None, delay: 0.0, after: None };
        let (retried, redriven) =
            race(time, async move { db.retry(job, Some(account), soon()).await }, async move {
                other.redrive(&filter, pace, soon()).await.unwrap().jobs
            })
            .await;
        let bulk = redriven.iter().filter(|job| job.retried_as.is_some()).count();
        let hand = usize::from(!is_refused(&retried, "already_retried"));
        assert_eq!(hand + bulk, 1, "{retried:?} {redriven:?}");
        (by_hands, in_bulks) = (by_hands + hand, in_bulks + bulk);
        assert_eq!(bench.balance(account).await, (0, PRICE), "held once");
        bench.sql("UPDATE punchcard.queue SET run_at = run_at + interval '1 hour'").await;
    }
    assert!(by_hands > 0 && in_bulks > 0, "a race: {by_hands} and {in_bulks}");
    assert_eq!(
        bench.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await,
        0
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_finish_against_take_back_has_one_winner() {
    let (bench, worker, rescuer) = track().await;
    let (mut finished, mut taken_back) = (0, 0);
    for time in 0..TIMES {
        let account = bench.account(PRICE).await;
        let job = buy(&bench, account).await;
        let lease = claim(&worker).await;
        // It ends within the race.
        let micros = 1_000 + 500 * (time % 9);
        bench
            .sql(&format!(
                "UPDATE punchcard.queue SET lease_expires_at = clock_timestamp() + interval '{micros} microseconds'
                 WHERE job_id = '{job}'"
            ))
            .await;
        let (db, other) = (Arc::clone(&worker), Arc::clone(&rescuer));
        let (settled, rescued) = race(
            time,
            async move { db.settle(&[(lease, done())], soon()).await.unwrap().jobs.len() },
            async move {
                let mut rescued = 0;
                for _ in 0..4 {
                    rescued += other.rescue(10, &[], soon()).await.unwrap().0.len();
                }
                rescued
            },
        )
        .await;
        assert!(settled + rescued <= 1, "{settled} and {rescued}");
        (finished, taken_back) = (finished + settled, taken_back + rescued);
        let held = if settled == 1 { 0 } else { PRICE };
        assert_eq!(bench.balance(account).await, (0, held), "captured once, or still held");
        bench
            .sql("UPDATE punchcard.queue SET run_at = run_at + interval '1 hour', lease_expires_at = NULL")
            .await;
    }
    assert!(finished > 0 && taken_back > 0, "a race: {finished} and {taken_back}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_refunds_one_is_made() {
    let (bench, worker, _) = track().await;
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(Arc::new(connect(&bench.direct_url).await));
    }
    for _ in 0..TIMES {
        let account = bench.account(PRICE).await;
        let job = buy(&bench, account).await;
        let lease = claim(&worker).await;
        worker.settle(&[(lease, done())], soon()).await.unwrap();
        let mut refunds = JoinSet::new();
        for operator in &operators {
            let operator = Arc::clone(operator);
            refunds.spawn(async move {
                let refund = format!("SELECT amount FROM punchcard.refund('{job}', 'sorry')");
                match operator.query_typed(&refund, &[]).await {
                    Ok(rows) => rows[0].get::<_, i64>(0),
                    Err(error) => {
                        assert_eq!(error.as_db_error().unwrap().message(), "already_refunded");
                        0
                    }
                }
            });
        }
        assert_eq!(refunds.join_all().await.into_iter().sum::<i64>(), PRICE, "once");
        assert_eq!(bench.balance(account).await, (PRICE, 0));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_retries_through_the_api_one_is_made() {
    let (bench, db, _) = track().await;
    for _ in 0..TIMES / 10 {
        let (job, account) = failed(&bench, &db).await;
        let path = format!("/api/jobs/{job}/retry");
        let answers = futures_util::future::join_all((0..10).map(|_| bench.act(account, &path))).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
        assert_eq!(made.len(), 1, "one of ten at once");
        for refused in answers.iter().filter(|answer| answer.status != 202) {
            assert_eq!((refused.status, &refused.body["code"]), (409, &json!("already_retried")));
            assert_eq!(refused.body["retried_as"], made[0].body["id"]);
        }
        assert_eq!(bench.balance(account).await, (0, PRICE));
        bench.sql("UPDATE punchcard.queue SET run_at = run_at + interval '1 hour'").await;
    }
    bench.assert_audit_is_clean().await;
}
