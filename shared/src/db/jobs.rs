//! One function per statement that buys jobs or shows them.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError};
use crate::domain::{Deadline, Status, Timestamp};

/// Buys a job; public for the benchmark that runs it as it is.
pub const ENQUEUE: &str = include_str!("jobs/enqueue.sql");
pub(crate) const ENQUEUE_BATCH: &str = include_str!("jobs/enqueue_batch.sql");
pub(crate) const FIND: &str = include_str!("jobs/find.sql");
pub(crate) const LIST: &str = include_str!("jobs/list.sql");

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
    /// When a wake-up is due for it, if one is.
    #[serde(skip)]
    pub wake_after: Option<Duration>,
}

/// A batch that was bought, now or before.
#[derive(Debug)]
pub struct EnqueuedBatch {
    /// Its jobs, in their order.
    pub jobs: Vec<BatchedJob>,
    /// Whether the idempotency key had bought it before.
    pub replayed: bool,
}

/// A job that was bought, now or before.
#[derive(Debug)]
pub struct Enqueued {
    /// The job as it is now.
    pub job: Job,
    /// When a wake-up is due for it, if one is.
    pub wake_after: Option<Duration>,
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
            return Ok(Enqueued { job: now, replayed: true, wake_after: None });
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
        Ok(Enqueued { job, replayed: false, wake_after: seconds(row.get(7)) })
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
                wake_after: seconds(row.get(5)),
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
}

fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)))
}

/// The status of that word.
pub(super) fn status(word: &str) -> Result<Status, DbError> {
    Status::parse(word).ok_or_else(|| DbError::Broken(format!("unknown status {word}")))
}
