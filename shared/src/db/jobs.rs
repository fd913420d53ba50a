//! One function per statement on `jobs`.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError};
use crate::domain::{Backoff, Deadline, Lease, Status, Target, Timestamp, Verdict};

/// Buys a job; public for the benchmark that runs it as it is.
pub const ENQUEUE: &str = include_str!("jobs/enqueue.sql");
pub(crate) const ENQUEUE_BATCH: &str = include_str!("jobs/enqueue_batch.sql");
pub(crate) const FIND: &str = include_str!("jobs/find.sql");
pub(crate) const LIST: &str = include_str!("jobs/list.sql");
pub(crate) const CLAIM: &str = include_str!("jobs/claim.sql");
pub(crate) const SETTLE: &str = include_str!("jobs/settle.sql");
/// Takes back lapsed jobs; public for the tests that explain its plan.
pub const RESCUE: &str = include_str!("jobs/rescue.sql");
pub(crate) const HEALTH: &str = include_str!("jobs/health.sql");

/// A job as its owner sees it.
#[derive(Debug, Serialize)]
pub struct Job {
    /// UUIDv7.
    pub id: Uuid,
    /// What to do.
    pub kind: String,
    /// Who pays.
    pub account_id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// Higher first, -10 to 10.
    pub priority: i16,
    /// With what, as it was sent.
    pub input: Box<RawValue>,
    /// What came of it.
    pub output: Option<Box<RawValue>>,
    /// Why the last attempt that erred did.
    pub error: Option<Box<RawValue>>,
    /// Starts so far.
    pub attempt: i16,
    /// Starts there may be.
    pub max_attempts: i16,
    /// Not before; of a job to be tried again, when.
    pub run_at: Timestamp,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// Unfinished by then, it fails.
    pub expires_at: Timestamp,
    /// What became of its price.
    pub credits: JobCredits,
}

/// What became of a job's price.
#[derive(Debug, Serialize)]
pub struct JobCredits {
    /// What was held when it was queued.
    pub price: i64,
    /// Still held.
    pub held: i64,
    /// Charged for good.
    pub captured: i64,
    /// Given back.
    pub released: i64,
}

impl JobCredits {
    fn of(status: Status, price: i64) -> Self {
        let (held, captured, released) = match status {
            Status::Queued | Status::Running => (price, 0, 0),
            Status::Succeeded => (0, price, 0),
            Status::Failed | Status::Canceled => (0, 0, price),
        };
        Self { price, held, captured, released }
    }
}

impl Job {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let status = status(row.get(3))?;
        let json =
            |text: String| RawValue::from_string(text).map_err(|error| DbError::Broken(error.to_string()));
        Ok(Self {
            id: row.get(0),
            account_id: row.get(1),
            kind: row.get(2),
            status,
            credits: JobCredits::of(status, row.get(4)),
            attempt: row.get(5),
            max_attempts: row.get(6),
            input: json(row.get(7))?,
            output: row.get::<_, Option<String>>(8).map(json).transpose()?,
            error: row.get::<_, Option<String>>(9).map(json).transpose()?,
            run_at: Timestamp(row.get(10)),
            created_at: Timestamp(row.get(11)),
            started_at: row.get::<_, Option<_>>(12).map(Timestamp),
            finished_at: row.get::<_, Option<_>>(13).map(Timestamp),
            expires_at: Timestamp(row.get(14)),
            priority: row.get(15),
        })
    }
}

/// A job to buy.
#[derive(Debug, Clone, Copy)]
pub struct NewJob<'a> {
    /// What to do.
    pub kind: &'a str,
    /// With what.
    pub input: &'a RawValue,
    /// Higher first, -10 to 10.
    pub priority: i16,
    /// Not before: RFC 3339; now if `None` or past.
    pub run_at: Option<&'a str>,
}

/// A job of a batch, in short.
#[derive(Debug, Serialize)]
pub struct BatchedJob {
    /// UUIDv7.
    pub id: Uuid,
    /// What to do.
    pub kind: String,
    /// Where it stands.
    pub status: Status,
    /// What was held for it.
    pub price: i64,
}

/// A batch that was bought, now or before.
#[derive(Debug)]
pub struct EnqueuedBatch {
    /// Its jobs, in their order.
    pub jobs: Vec<BatchedJob>,
    /// Whether the idempotency key had bought it before.
    pub replayed: bool,
}

/// What a worker can take on.
#[derive(Debug, Clone, Copy)]
pub struct Capacity<'a> {
    /// How many jobs.
    pub limit: usize,
    /// The Rust kinds that it serves.
    pub rust_kinds: &'a [&'a str],
    /// Whether it calls HTTP targets.
    pub http: bool,
    /// The longest time limit of a job.
    pub budget: Duration,
    /// How long a lease must last.
    pub lease: Duration,
}

/// Where a worker's claims have come to: for each priority, `run_at` (microseconds since 1970) and id of the last job.
#[derive(Debug, Default)]
pub struct Cursor(HashMap<i16, (i64, Uuid)>);

impl Cursor {
    fn advance(&mut self, priority: i16, position: (i64, Uuid)) {
        let last = self.0.entry(priority).or_insert(position);
        *last = position.max(*last);
    }
}

/// A job that was bought, now or before.
#[derive(Debug)]
pub struct Enqueued {
    /// The job as it is now.
    pub job: Job,
    /// Whether the idempotency key had bought it before.
    pub replayed: bool,
}

/// Which of an account's jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those created before this one.
    pub before: Option<Uuid>,
}

/// What a rescue did to a job.
#[derive(Debug)]
pub struct Rescued {
    /// The job.
    pub job_id: Uuid,
    /// `Queued` again, or `Failed` and released.
    pub status: Status,
}

impl Db {
    /// Holds the kind's price and queues the job, in one statement; or answers the job that `key` bought before, as it
    /// is now, by a second one.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `insufficient_credits` (402), `unknown_kind` or `idempotency_mismatch` (422).
    pub async fn enqueue(
        &self,
        account_id: Uuid,
        job: NewJob<'_>,
        key: Option<&str>,
        deadline: Deadline,
    ) -> Result<Enqueued, DbError> {
        let params = [
            (&account_id as _, Type::UUID),
            (&job.kind as _, Type::TEXT),
            (&job.input.get() as _, Type::TEXT),
            (&key as _, Type::TEXT),
            (&i32::from(job.priority) as _, Type::INT4),
            (&job.run_at as _, Type::TEXT),
        ];
        let rows = self.rows(ENQUEUE, &params, Again::if_keyed(key), deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("enqueue answered no row".into()))?;
        let id = row.get(0);
        if row.get(6) {
            let now = self.find_job(id, Some(account_id), deadline).await?;
            let now = now.ok_or_else(|| DbError::Broken("a replayed job is not there".into()))?;
            return Ok(Enqueued { job: now, replayed: true });
        }
        let job = Job {
            id,
            kind: job.kind.to_owned(),
            account_id,
            status: Status::Queued,
            priority: job.priority,
            input: job.input.to_owned(),
            output: None,
            error: None,
            attempt: 0,
            max_attempts: row.get(2),
            run_at: Timestamp(row.get(3)),
            created_at: Timestamp(row.get(4)),
            started_at: None,
            finished_at: None,
            expires_at: Timestamp(row.get(5)),
            credits: JobCredits::of(Status::Queued, row.get(1)),
        };
        Ok(Enqueued { job, replayed: false })
    }

    /// Buys up to 1,000 jobs, all or nothing, or answers the batch that `key` bought before. `jobs` is a JSON array of
    /// objects with `kind` and, as wished, `input`, `priority` and `run_at`.
    ///
    /// # Errors
    /// As [`Db::enqueue`]; the detail says which job.
    pub async fn enqueue_batch(
        &self,
        account_id: Uuid,
        jobs: &str,
        key: Option<&str>,
        deadline: Deadline,
    ) -> Result<EnqueuedBatch, DbError> {
        let params = [(&account_id as _, Type::UUID), (&jobs as _, Type::TEXT), (&key as _, Type::TEXT)];
        let rows = self.rows(ENQUEUE_BATCH, &params, Again::if_keyed(key), deadline).await?;
        let jobs = rows.iter().map(|row| {
            Ok(BatchedJob {
                id: row.get(0),
                kind: row.get(1),
                status: status(row.get(2))?,
                price: row.get(3),
            })
        });
        let replayed = rows.first().is_some_and(|row| row.get(4));
        Ok(EnqueuedBatch { jobs: jobs.collect::<Result<_, DbError>>()?, replayed })
    }

    /// One job, of `account_id` or, if `None`, of anybody.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn find_job(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<Option<Job>, DbError> {
        let params = [(&id as _, Type::UUID), (&account_id as _, Type::UUID)];
        self.rows(FIND, &params, Again::Safe, deadline).await?.first().map(Job::from_row).transpose()
    }

    /// At most `limit` jobs of an account, newest first.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn list_jobs(
        &self,
        account_id: Uuid,
        filter: &JobFilter,
        limit: i64,
        deadline: Deadline,
    ) -> Result<Vec<Job>, DbError> {
        let status = filter.status.map(Status::as_str);
        let params = [
            (&account_id as _, Type::UUID),
            (&status as _, Type::TEXT),
            (&filter.kind as _, Type::TEXT),
            (&filter.before as _, Type::UUID),
            (&limit as _, Type::INT8),
        ];
        self.rows(LIST, &params, Again::Safe, deadline).await?.iter().map(Job::from_row).collect()
    }

    /// Claims due jobs that this worker serves, by priority, then age, from where `cursor` stands; moves it on.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. What an unanswered claim took comes back when its leases expire.
    pub async fn claim(
        &self,
        capacity: Capacity<'_>,
        cursor: &mut Cursor,
        deadline: Deadline,
    ) -> Result<Vec<Lease>, DbError> {
        let limit = i64::try_from(capacity.limit).unwrap_or(i64::MAX);
        let budget = i32::try_from(capacity.budget.as_secs()).unwrap_or(i32::MAX);
        let (priorities, positions): (Vec<i16>, Vec<(i64, Uuid)>) = cursor.0.iter().unzip();
        let (run_ats, ids): (Vec<i64>, Vec<Uuid>) = positions.into_iter().unzip();
        let params = [
            (&limit as _, Type::INT8),
            (&capacity.rust_kinds as _, Type::TEXT_ARRAY),
            (&capacity.http as _, Type::BOOL),
            (&budget as _, Type::INT4),
            (&capacity.lease.as_secs_f64() as _, Type::FLOAT8),
            (&priorities as _, Type::INT2_ARRAY),
            (&run_ats as _, Type::INT8_ARRAY),
            (&ids as _, Type::UUID_ARRAY),
        ];
        let rows = self.rows(CLAIM, &params, Again::Unsafe, deadline).await?;
        for row in &rows {
            cursor.advance(row.get(14), (row.get(15), row.get(0)));
        }
        Ok(rows.iter().map(lease_from_row).collect())
    }

    /// Records the verdicts, each fenced by its lease, and answers the jobs it settled: whoever is missing had
    /// lost its lease, and nothing of it was written.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. Sending the same verdicts again is safe.
    pub async fn settle(
        &self,
        verdicts: &[(Lease, Verdict)],
        deadline: Deadline,
    ) -> Result<Vec<Uuid>, DbError> {
        let mut columns = Columns::default();
        for (lease, verdict) in verdicts {
            columns.push(lease, verdict);
        }
        let params = [
            (&columns.job_ids as _, Type::UUID_ARRAY),
            (&columns.lease_tokens as _, Type::INT8_ARRAY),
            (&columns.words as _, Type::TEXT_ARRAY),
            (&columns.delays as _, Type::FLOAT8_ARRAY),
            (&columns.outputs as _, Type::TEXT_ARRAY),
            (&columns.errors as _, Type::TEXT_ARRAY),
        ];
        let rows = self.rows(SETTLE, &params, Again::Safe, deadline).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Takes back at most `limit` lapsed jobs: their lease, or their life, has expired.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. Rescuing twice is safe.
    pub async fn rescue(&self, limit: i64, deadline: Deadline) -> Result<Vec<Rescued>, DbError> {
        let rows = self.rows(RESCUE, &[(&limit, Type::INT8)], Again::Safe, deadline).await?;
        rows.iter().map(|row| Ok(Rescued { job_id: row.get(0), status: status(row.get(1))? })).collect()
    }

    /// How long the oldest due job has been waiting, if one is; also whether the database answers at all.
    ///
    /// # Errors
    /// [`DbError`] when it does not.
    pub async fn oldest_due(&self, deadline: Deadline) -> Result<Option<Duration>, DbError> {
        let rows = self.rows(HEALTH, &[], Again::Safe, deadline).await?;
        let seconds: Option<f64> = rows.first().and_then(|row| row.get(0));
        Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
    }
}

fn status(word: &str) -> Result<Status, DbError> {
    Status::parse(word).ok_or_else(|| DbError::Broken(format!("unknown status {word}")))
}

fn lease_from_row(row: &Row) -> Lease {
    let seconds = |column: usize| Duration::from_secs(row.get::<_, i32>(column).unsigned_abs().into());
    let count = |column: usize| row.get::<_, i16>(column).unsigned_abs().into();
    let url: Option<String> = row.get(7);
    let target = match url {
        _ if row.get(9) => Target::Retired,
        Some(url) => Target::Http { url, secret_version: row.get::<_, i32>(8).unsigned_abs() },
        None => Target::Rust,
    };
    Lease {
        job_id: row.get(0),
        lease_token: row.get(1),
        account_id: row.get(2),
        kind: row.get(3),
        attempt: count(4),
        max_attempts: count(5),
        input: row.get(6),
        target,
        timeout: seconds(10),
        backoff: Backoff { base: seconds(11), cap: seconds(12) },
        lasts: Duration::from_secs_f64(row.get::<_, f64>(13).max(0.0)),
    }
}

/// Verdicts as the parallel arrays of `settle.sql`.
#[derive(Default)]
struct Columns<'a> {
    job_ids: Vec<Uuid>,
    lease_tokens: Vec<i64>,
    words: Vec<&'static str>,
    delays: Vec<f64>,
    outputs: Vec<Option<&'a str>>,
    errors: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, lease: &Lease, verdict: &'a Verdict) {
        let (word, delay, output, error) = match verdict {
            Verdict::Complete(output) => ("complete", 0.0, Some(output.get()), None),
            Verdict::Retry { delay, error } => ("retry", delay.as_secs_f64(), None, Some(error)),
            Verdict::Fail(error) => ("fail", 0.0, None, Some(error)),
            Verdict::Return => ("return", 0.0, None, None),
        };
        let error = error.map(|error| {
            serde_json::json!({ "code": error.code, "message": error.message, "attempt": lease.attempt })
                .to_string()
        });
        self.job_ids.push(lease.job_id);
        self.lease_tokens.push(lease.lease_token);
        self.words.push(word);
        self.delays.push(delay);
        self.outputs.push(output);
        self.errors.push(error);
    }
}
