//! What READ COMMITTED does to a statement whose rows somebody touches between its snapshot and its write: each statement that
//! changes rows it found is held there, by a transaction that has one of them, and does all that it was to do.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use shared::{
    db::{
        Db, DbError,
        queue::{Capacity, Cursor, Report},
    },
    domain::{Deadline, ErrorCode, JobError, Lease, Status, Verdict},
};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Bench, OWNER, as_role, connect};

const JOBS: usize = 5;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

struct Held {
    bench: Bench,
    db: Arc<Db>,
    team: Client,
    account: Uuid,
}

impl Held {
    /// A database where a statement waits for as long as the test wants it to, rather than for 200 ms.
    async fn new() -> Self {
        let bench = Bench::new().await;
        bench.sql("ALTER FUNCTION punchcard.settle SET lock_timeout = '30s'").await;
        let team = connect(&as_role(&bench.direct_url, OWNER)).await;
        let account = bench.account(1_000).await;
        let db = Arc::new(bench.db());
        Self { bench, db, team, account }
    }

    async fn leases(&self) -> Vec<Lease> {
        self.bench.enqueue(self.account, "qr.svg", JOBS).await;
        self.claim().await
    }

    async fn claim(&self) -> Vec<Lease> {
        let minute = Duration::from_secs(60);
        let capacity = Capacity {
            limit: 100,
            named: &[],
            woken: false,
            rust_kinds: &["qr.svg"],
            http: false,
            budget: minute,
            lease: minute,
        };
        let mut leases = self.db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases;
        leases.sort_by_key(|lease| lease.job_id);
        leases
    }

    /// A transaction that has touched this run's job, and stays open.
    async fn touch(&self, lease: &Lease) {
        let (job, token) = (lease.job_id, lease.lease_token);
        let sql = format!(
            "BEGIN; SELECT punchcard.call_back('{job}', {token}, 'progress', p_percent => 5::smallint)"
        );
        self.team.batch_execute(&sql).await.unwrap();
    }

    async fn until_somebody_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while self.bench.count(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Settles these while the `nth` of the jobs is touched; answers what was settled.
    async fn settle_beside(&self, nth: usize, verdicts: Vec<(Lease, Verdict)>) -> Vec<(Uuid, Status)> {
        self.touch(&verdicts[nth].0).await;
        let db = Arc::clone(&self.db);
        let settling = tokio::spawn(async move { db.settle(&verdicts, soon()).await });
        self.until_somebody_waits().await;
        self.team.batch_execute("COMMIT").await.unwrap();
        let mut jobs = settling.await.unwrap().unwrap().jobs;
        jobs.sort_by_key(|(id, _)| *id);
        jobs
    }
}

fn error() -> JobError {
    JobError::new(ErrorCode::HandlerError, "no")
}

fn complete() -> Verdict {
    Verdict::Complete { output: RawValue::NULL.to_owned(), used: None }
}

/// Its history goes to another month just then: what a cancel costs is decided by the row that it locks.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_run_is_not_canceled_for_nothing_while_its_months_are_made() {
    let held = Held::new().await;
    held.bench
        .sql(&format!(
            "INSERT INTO punchcard.kinds (name, price, on_cancel) VALUES ('kept', 10, 'refuse');
             SELECT punchcard.enqueue('{}', 'kept')",
            held.account
        ))
        .await;
    // Of an old system, whose ids tell any time: it stands in the spare month.
    let id: Uuid = "01a6ffff-1111-4222-8333-444444444442".parse().unwrap();
    held.bench
        .sql(&format!(
            "SET session_replication_role = replica;
             UPDATE punchcard.queue SET job_id = '{id}';
             UPDATE punchcard.jobs SET id = '{id}';
             SET session_replication_role = origin"
        ))
        .await;
    let minute = Duration::from_secs(60);
    let capacity = Capacity {
        limit: 1,
        named: &[],
        woken: false,
        rust_kinds: &["kept"],
        http: false,
        budget: minute,
        lease: minute,
    };
    let lease = held.db.claim(capacity, &mut Cursor::default(), soon()).await.unwrap().leases.remove(0);
    let retry = Verdict::Retry { delay: Duration::from_secs(3_600), error: error() };
    held.db.settle(&[(lease, retry)], soon()).await.unwrap();
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"] {
        let canceler = connect(&as_role(&held.bench.direct_url, OWNER)).await;
        canceler.batch_execute(begin).await.unwrap();
        held.team.batch_execute("BEGIN; SELECT punchcard.make_periods(8, 10)").await.unwrap();
        let cancel = format!("SELECT punchcard.cancel('{id}')");
        let (refused, ()) = futures_util::future::join(canceler.batch_execute(&cancel), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            held.team.batch_execute("COMMIT").await.unwrap();
            while held.bench.count("SELECT punchcard.make_periods(8, 10)::integer::bigint").await > 0 {}
        })
        .await;
        let refused = refused.expect_err("it cannot be canceled once it has run");
        assert_eq!(
            refused.code().map(|code| code.code().to_owned()),
            Some("PT409".to_owned()),
            "{refused:?}"
        );
        canceler.batch_execute("ROLLBACK").await.unwrap();
    }
    held.bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verdict_is_dropped_whichever_job_was_touched() {
    let held = Held::new().await;
    let delay = Duration::ZERO;
    let verdicts: [(fn() -> Verdict, Status); 9] = [
        (complete, Status::Succeeded),
        (|| Verdict::Fail(error()), Status::Failed),
        (|| Verdict::Reject(error()), Status::Failed),
        (|| Verdict::Retry { delay: Duration::from_secs(3_600), error: error() }, Status::Queued),
        (|| Verdict::Snooze { delay: Duration::from_secs(3_600), error: None }, Status::Queued),
        (|| Verdict::Crash { delay: Duration::from_secs(3_600), error: error() }, Status::Queued),
        (|| Verdict::Wait { within: Duration::from_secs(3_600) }, Status::Running),
        (|| Verdict::Yield, Status::Queued),
        (|| Verdict::Return, Status::Queued),
    ];
    for touched in [0, JOBS / 2, JOBS - 1] {
        for (verdict, expected) in &verdicts {
            let all: Vec<_> = held.leases().await.into_iter().map(|lease| (lease, verdict())).collect();
            let expected: Vec<_> = all.iter().map(|(lease, _)| (lease.job_id, *expected)).collect();
            assert_eq!(held.settle_beside(touched, all).await, expected, "the {touched}th was touched");
            // What is due again at once would be claimed along with the next.
            held.bench
                .sql("SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued'")
                .await;
        }
        // Those that were to be canceled, and are.
        let all: Vec<_> = held.leases().await.into_iter().map(|lease| (lease, Verdict::Cancel)).collect();
        for (lease, _) in &all {
            held.bench.sql(&format!("SELECT punchcard.cancel('{}')", lease.job_id)).await;
        }
        let expected: Vec<_> = all.iter().map(|(lease, _)| (lease.job_id, Status::Canceled)).collect();
        assert_eq!(held.settle_beside(touched, all).await, expected, "the {touched}th was touched");
        // Of every sort at once, with a success that is touched.
        let leases = held.leases().await;
        let mixed = leases.into_iter().enumerate().map(|(nth, lease)| {
            (lease, if nth == touched { complete() } else { Verdict::Retry { delay, error: error() } })
        });
        assert_eq!(held.settle_beside(touched, mixed.collect()).await.len(), JOBS);
        let again: Vec<_> = held.claim().await.into_iter().map(|lease| (lease, complete())).collect();
        assert_eq!(held.db.settle(&again, soon()).await.unwrap().jobs.len(), JOBS - 1);
    }
    held.bench.assert_audit_is_clean().await;
}

/// The balances that a batch moves are found by what its jobs add up to, account by account.
#[tokio::test(flavor = "multi_thread")]
async fn no_accounts_credits_are_dropped_whichever_was_bought_from_meanwhile() {
    let held = Held::new().await;
    let mut accounts = [held.account, held.bench.account(1_000).await, held.bench.account(1_000).await];
    accounts.sort();
    for (round, touched) in (1_i64..).zip([0, 1, 2]) {
        for account in accounts {
            held.bench.enqueue(account, "qr.svg", 2).await;
        }
        let all: Vec<_> = held.claim().await.into_iter().map(|lease| (lease, complete())).collect();
        assert_eq!(all.len(), 6);
        let buy = format!("BEGIN; SELECT punchcard.enqueue('{}', 'echo.http')", accounts[touched]);
        held.team.batch_execute(&buy).await.unwrap();
        let db = Arc::clone(&held.db);
        let settling = tokio::spawn(async move { db.settle(&all, soon()).await });
        held.until_somebody_waits().await;
        held.team.batch_execute("COMMIT").await.unwrap();
        assert_eq!(settling.await.unwrap().unwrap().jobs.len(), 6, "the {touched}th was bought from");
        for (nth, account) in accounts.into_iter().enumerate() {
            let bought = if nth <= touched { 10 } else { 0 };
            assert_eq!(
                held.bench.balance(account).await,
                (1_000 - 2 * round - bought, bought),
                "{nth} of {touched}"
            );
        }
    }
    held.bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_reach_is_said_and_the_others_are_settled() {
    let held = Held::new().await;
    let moment = Duration::from_millis(20);
    for touched in [0, JOBS / 2, JOBS - 1] {
        let all: Vec<_> = held.leases().await.into_iter().map(|lease| (lease, complete())).collect();
        held.touch(&all[touched].0).await;
        let settled = held.db.settle_within_reach(&all, moment, soon()).await.unwrap();
        assert_eq!((settled.jobs.len(), settled.out_of_reach), (JOBS - 1, vec![all[touched].0.job_id]));
        held.team.batch_execute("COMMIT").await.unwrap();
        let rest = held.db.settle_within_reach(&all[touched..=touched], moment, soon()).await.unwrap();
        assert_eq!(rest.jobs, [(all[touched].0.job_id, Status::Succeeded)]);
    }
    // An account that is held: what ends does, and what it moves is entered later.
    let mut all: Vec<_> = held.leases().await.into_iter().map(|lease| (lease, complete())).collect();
    all[0].1 = Verdict::Retry { delay: Duration::from_secs(3_600), error: error() };
    let hold = format!("BEGIN; SELECT punchcard.enqueue('{}', 'unserved')", held.account);
    held.team.batch_execute(&hold).await.unwrap();
    let settled = held.db.settle_within_reach(&all, moment, soon()).await.unwrap();
    assert_eq!((settled.jobs.len(), settled.out_of_reach.len()), (JOBS, 0));
    let waiting = "SELECT count(*) FROM punchcard.deferred_entries WHERE entry IS NULL";
    assert_eq!(held.bench.count(waiting).await, JOBS as i64 - 1);
    held.bench.assert_audit_is_clean_meanwhile().await;
    held.team.batch_execute("ROLLBACK").await.unwrap();
    held.bench.sql("SELECT * FROM punchcard.rescue(10)").await;
    assert_eq!(held.bench.count(waiting).await, 0);
    held.bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_a_rescue_and_a_check_in_pass_over_what_is_held_and_find_it_later() {
    let held = Held::new().await;
    for touched in [0, JOBS / 2, JOBS - 1] {
        held.bench.enqueue(held.account, "qr.svg", JOBS).await;
        let queued = "SELECT id FROM punchcard.jobs_now WHERE status = 'queued' ORDER BY id";
        let id: Uuid = held.bench.rows(queued).await[touched].get(0);
        held.team.batch_execute(&format!("BEGIN; SELECT punchcard.cancel('{id}')")).await.unwrap();
        let mut leases = held.claim().await;
        assert_eq!(leases.len(), JOBS - 1);
        held.team.batch_execute("ROLLBACK").await.unwrap();
        leases.extend(held.claim().await);
        leases.sort_by_key(|lease| lease.job_id);
        assert_eq!(leases.len(), JOBS, "it was not canceled after all");

        held.touch(&leases[touched]).await;
        let report = |lease: &Lease| Report {
            job_id: lease.job_id,
            lease_token: lease.lease_token,
            percent: Some(7),
            message: None,
            checkpoint: None,
        };
        let reports: Vec<_> = leases.iter().map(report).collect();
        let noted = held.db.check_in(&reports, soon()).await.unwrap().noted;
        assert_eq!(noted.len(), JOBS - 1);
        assert!(!noted.contains(&leases[touched].job_id));
        held.team.batch_execute("COMMIT").await.unwrap();
        assert_eq!(held.db.check_in(&reports, soon()).await.unwrap().noted.len(), JOBS);

        held.touch(&leases[touched]).await;
        held.bench.admin.batch_execute("SET lock_timeout = '1s'").await.unwrap();
        let others: Vec<String> = leases
            .iter()
            .enumerate()
            .filter(|(nth, _)| *nth != touched)
            .map(|(_, lease)| format!("'{}'", lease.job_id))
            .collect();
        held.bench
            .sql(&format!(
                "UPDATE punchcard.queue SET lease_expires_at = now() - interval '1 second' WHERE job_id IN ({})",
                others.join(",")
            ))
            .await;
        let (rescued, _) = held.db.rescue(100, &[], soon()).await.unwrap();
        assert_eq!(rescued.iter().filter(|job| job.status == Some(Status::Queued)).count(), JOBS - 1);
        held.team.batch_execute("COMMIT").await.unwrap();
        let last = vec![(leases[touched].clone(), complete())];
        assert_eq!(held.db.settle(&last, soon()).await.unwrap().jobs.len(), 1);
        held.bench.sql("SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued'").await;
    }
    held.bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_verdict_is_an_error_and_settles_nothing() {
    let held = Held::new().await;
    let leases = held.leases().await;
    let ids: Vec<String> = leases.iter().map(|lease| format!("'{}'", lease.job_id)).collect();
    let settle = |verdicts: &str, tokens: &str| {
        format!(
            "SELECT * FROM punchcard.settle(ARRAY[{}]::uuid[], {tokens}, {verdicts}, NULL, NULL, NULL)",
            ids.join(",")
        )
    };
    let (right, tokens) = ("array_fill('fail'::text, ARRAY[5])", "array_fill(1::bigint, ARRAY[5])");
    for (verdicts, tokens) in [
        ("ARRAY['fail', 'fail', 'succeed', 'fail', 'fail']", tokens),
        ("ARRAY['fail', 'fail', NULL, 'fail', 'fail']", tokens),
        ("ARRAY['fail']", tokens),
        (right, "ARRAY[1::bigint]"),
    ] {
        let error = held.bench.admin.query_typed(&settle(verdicts, tokens), &[]).await.unwrap_err();
        let error = error.as_db_error().expect("the database's word");
        assert_eq!((error.code().code(), error.message()), ("PT422", "unknown_verdict"));
    }
    let done: Vec<_> = leases.into_iter().map(|lease| (lease, complete())).collect();
    assert_eq!(held.db.settle(&done, soon()).await.unwrap().jobs.len(), JOBS);
    held.bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_in_nobodys_fault_rolled_back_says_so() {
    let held = Held::new().await;
    held.bench.sql("ALTER FUNCTION punchcard.settle SET lock_timeout = '50ms'").await;
    let all: Vec<_> = held.leases().await.into_iter().map(|lease| (lease, complete())).collect();
    held.touch(&all[2].0).await;
    let busy = held.db.settle(&all, soon()).await;
    assert!(matches!(busy, Err(DbError::Busy(_))), "{busy:?}");
    held.team.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(held.db.settle(&all, soon()).await.unwrap().jobs.len(), JOBS, "nothing was settled before");
    held.bench.assert_audit_is_clean().await;
}
