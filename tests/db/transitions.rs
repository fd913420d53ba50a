//! The database does what the table of the domain says, for each state and each event: where the job goes, and what
//! becomes of its hold.

use std::time::Duration;

use serde_json::value::RawValue;
use shared::{
    db::{
        Db,
        callbacks::CallBack,
        queue::{Capacity, Cursor},
    },
    domain::{
        Deadline, ErrorCode, JobError, Lease, Verdict,
        transitions::{Event, Money, State, next},
    },
};
use uuid::Uuid;

use crate::support::Bench;

const PRICE: i64 = 10;
/// Who makes something happen.
const BY_WORKER: usize = 0;
const BY_RESCUE: usize = 1;
const CALLED_BACK: usize = 2;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

async fn claim(db: &Db, job: Uuid) -> Option<Lease> {
    let minute = Duration::from_secs(60);
    let named = [job];
    let capacity = Capacity {
        limit: 1,
        named: &named,
        woken: false,
        rust_kinds: &["released", "captured"],
        http: false,
        budget: minute,
        lease: minute,
    };
    let leases = db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases;
    leases.into_iter().find(|lease| lease.job_id == job)
}

fn done() -> Verdict {
    Verdict::Complete { output: RawValue::NULL.to_owned(), used: None }
}

fn error() -> JobError {
    JobError::new(ErrorCode::HandlerError, "no")
}

/// A job in that state, which was claimed once before, and the lease of its last claim.
async fn bring(bench: &Bench, db: &Db, kind: &str, state: State) -> Lease {
    let account = bench.account(PRICE).await;
    let hook = "'https://example.com/', '{job.running,job.succeeded,job.failed,job.canceled}'";
    bench.sql(&format!("SELECT punchcard.set_webhook('{account}', {hook})")).await;
    let enqueue = format!("SELECT job_id FROM punchcard.enqueue('{account}', '{kind}')");
    let job: Uuid = bench.rows(&enqueue).await[0].get(0);
    let lease = claim(db, job).await.expect("due");
    let verdict = match state {
        State::Queued | State::Canceled => Verdict::Return,
        State::Succeeded => done(),
        State::Failed => Verdict::Fail(error()),
        State::Running | State::Canceling => {
            if state == State::Canceling {
                db.cancel(job, None, soon()).await.unwrap();
            }
            return lease;
        }
        State::Waiting => Verdict::Wait { within: Duration::from_secs(60) },
    };
    db.settle(&[(lease.clone(), verdict)], soon()).await.unwrap();
    if state == State::Canceled {
        db.cancel(job, None, soon()).await.unwrap();
    }
    lease
}

async fn happen(bench: &Bench, db: &Db, lease: &Lease, event: Event, way: usize) {
    let job = lease.job_id;
    if way == CALLED_BACK {
        let said = match event {
            Event::Complete => CallBack::Done { output: RawValue::NULL.to_owned(), used: None },
            Event::Retry => CallBack::Err(error()),
            Event::Fail => CallBack::Final(error()),
            Event::Reject => CallBack::Final(JobError::new(ErrorCode::InvalidInput, "no")),
            _ => return,
        };
        let _refused = db.call_back(job, lease.lease_token, &said, soon()).await;
        return;
    }
    let by_rescue = way == BY_RESCUE;
    let delay = Duration::from_secs(60);
    let verdict = match event {
        Event::Claim => {
            claim(db, job).await;
            return;
        }
        Event::Cancel => {
            let _refused = db.cancel(job, None, soon()).await;
            return;
        }
        Event::Expire => {
            bench
                .sql(&format!(
                    "UPDATE punchcard.queue SET expires_at = now() - interval '1 second',
                         lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL THEN now() - interval '1 second' END,
                         waiting_until = CASE WHEN waiting_until IS NOT NULL THEN now() - interval '1 second' END
                     WHERE job_id = '{job}'"
                ))
                .await;
            db.rescue(1_000, &[], soon()).await.unwrap();
            return;
        }
        Event::Overdue => {
            bench
                .sql(&format!(
                    "UPDATE punchcard.queue SET waiting_until = now() - interval '1 second' WHERE job_id = '{job}' AND waiting_until IS NOT NULL"
                ))
                .await;
            db.rescue(1_000, &[], soon()).await.unwrap();
            return;
        }
        Event::Crash | Event::LastCrash if by_rescue => {
            if event == Event::LastCrash {
                bench.sql(&format!("UPDATE punchcard.queue SET crashes = 2 WHERE job_id = '{job}'")).await;
            }
            bench
                .sql(&format!(
                    "UPDATE punchcard.queue SET lease_expires_at = lease_expires_at - interval '1 hour' WHERE job_id = '{job}'"
                ))
                .await;
            db.rescue(1_000, &[], soon()).await.unwrap();
            return;
        }
        Event::Crash => Verdict::Crash { delay, error: error() },
        Event::LastCrash => {
            bench.sql(&format!("UPDATE punchcard.queue SET crashes = 2 WHERE job_id = '{job}'")).await;
            Verdict::Crash { delay, error: error() }
        }
        Event::Complete => done(),
        Event::Retry => Verdict::Retry { delay, error: error() },
        Event::Snooze => Verdict::Snooze { delay, error: Some(error()) },
        Event::Yield => Verdict::Yield,
        Event::Wait => Verdict::Wait { within: delay },
        Event::Fail => Verdict::Fail(error()),
        Event::Reject => Verdict::Reject(JobError::new(ErrorCode::InvalidInput, "no")),
        Event::Stop => Verdict::Cancel,
        Event::Return => Verdict::Return,
    };
    db.settle(&[(lease.clone(), verdict)], soon()).await.unwrap();
}

/// Whoever was told of an end, was told once; answers how often the account was told of the job at all.
async fn messages(bench: &Bench, job: Uuid) -> i64 {
    bench
        .count(&format!(
            "SELECT count(*) FROM punchcard.messages WHERE job_id = '{job}' AND event <> 'cancel'"
        ))
        .await
}

/// Where the job stands, and what was captured and released.
async fn look(bench: &Bench, job: Uuid) -> (State, i64, i64) {
    let sql = format!(
        "SELECT n.status, CASE WHEN n.cancel_requested_at IS NOT NULL THEN 'canceling' WHEN n.waiting_until IS NOT NULL THEN 'waiting' END,
             coalesce((SELECT sum(amount) FROM punchcard.ledger WHERE job_id = n.id AND kind = 'capture'), 0)::bigint,
             coalesce((SELECT sum(amount) FROM punchcard.ledger WHERE job_id = n.id AND kind = 'release'), 0)::bigint
         FROM punchcard.jobs_now n WHERE n.id = '{job}'"
    );
    let row = bench.rows(&sql).await.remove(0);
    let state = match (row.get::<_, String>(0).as_str(), row.get(1)) {
        ("queued", None) => State::Queued,
        ("running", None) => State::Running,
        ("running", Some("canceling")) => State::Canceling,
        ("running", Some("waiting")) => State::Waiting,
        ("succeeded", _) => State::Succeeded,
        ("failed", _) => State::Failed,
        ("canceled", _) => State::Canceled,
        other => panic!("{other:?}"),
    };
    (state, row.get(2), row.get(3))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_goes_where_the_table_says_with_the_money_that_it_says() {
    let bench = Bench::new().await;
    let db = bench.db();
    bench
        .sql(&format!(
            "INSERT INTO punchcard.kinds (name, price, on_cancel, on_input_error) VALUES
             ('released', {PRICE}, 'release', 'release'), ('captured', {PRICE}, 'capture', 'capture')"
        ))
        .await;
    for kind in ["released", "captured"] {
        for from in State::ALL {
            for event in Event::ALL {
                let ways: &[usize] = match event {
                    Event::Crash | Event::LastCrash => &[BY_WORKER, BY_RESCUE],
                    Event::Complete | Event::Retry | Event::Fail | Event::Reject => &[BY_WORKER, CALLED_BACK],
                    _ => &[BY_WORKER],
                };
                for way in ways.iter().copied() {
                    let lease = bring(&bench, &db, kind, from).await;
                    let before = look(&bench, lease.job_id).await;
                    let told = messages(&bench, lease.job_id).await;
                    assert_eq!(before.0, from);
                    happen(&bench, &db, &lease, event, way).await;
                    // Of one that waits, no worker has anything to say: whoever calls back has.
                    let mute = from == State::Waiting
                        && way == BY_WORKER
                        && matches!(event, Event::Complete | Event::Retry | Event::Fail | Event::Reject);
                    let expected = match next(from, event).filter(|_| !mute) {
                        None => before,
                        Some((to, money)) => {
                            let captured = match money {
                                // What is brought into a state was claimed once, and handed back before it
                                // began.
                                Money::Held | Money::Released | Money::OnCancelOnceRun => 0,
                                Money::Captured => PRICE,
                                Money::OnCancel | Money::OnInputError if kind == "captured" => PRICE,
                                Money::OnCancel | Money::OnInputError => 0,
                            };
                            let released = if money == Money::Held { 0 } else { PRICE - captured };
                            (to, captured, released)
                        }
                    };
                    let after = look(&bench, lease.job_id).await;
                    assert_eq!(after, expected, "{kind}: {from:?} and {event:?}, way {way}");
                    // The account is told of each claim and each end, by the statement that did it.
                    let tellable =
                        after.0 != before.0 && (after.0.status().is_final() || event == Event::Claim);
                    let more = messages(&bench, lease.job_id).await - told;
                    assert_eq!(more, i64::from(tellable), "{kind}: {from:?} and {event:?}, way {way}");
                }
            }
        }
    }
    bench.assert_audit_is_clean().await;
}
