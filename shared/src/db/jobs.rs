//! One function per statement that buys jobs or shows them.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError, PAGE_BYTES};
use crate::domain::{Deadline, RetryOverrides, Status, Timestamp};

/// Buys a job; public for the benchmark that runs it as it is.
pub const ENQUEUE: &str = include_str!("jobs/enqueue.sql");
pub(crate) const FIND: &str = include_str!("jobs/find.sql");
pub(crate) const IS_FINAL: &str = include_str!("jobs/is_final.sql");
pub(crate) const IS_KEYED: &str = include_str!("jobs/is_keyed.sql");
pub(crate) const LIST: &str = include_str!("jobs/list.sql");

/// A job as its owner sees it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// UUIDv7.
    pub id: Uuid,
    /// The kind of the job: what is to be done, and at which price.
    pub kind: String,
    /// The account that pays.
    pub account_id: Uuid,
    /// Where the job stands.
    pub status: Status,
    /// Higher first, -10 to 10.
    pub priority: i16,
    /// The input, as it was sent; in a list, if `include` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub input: Option<Box<RawValue>>,
    /// The output, null until the job has succeeded; in a list, if `include` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub output: Option<Option<Box<RawValue>>>,
    /// The error of the last attempt that had one; null of a job that succeeded.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::domain::job::ErrorShown>))]
    pub error: Option<Box<RawValue>>,
    /// How many runs have counted as attempts so far.
    pub attempt: i16,
    /// How many attempts there may be.
    pub max_attempts: i16,
    /// Runs whose time was up, or whose worker never reported; they have a bound of their own.
    pub crashes: i16,
    /// How far its current run is, as its handler said.
    pub progress: Option<JobProgress>,
    /// When the job is due; of one that is to be tried again, when that is.
    pub run_at: Timestamp,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// When the job fails, if it is unfinished.
    pub expires_at: Timestamp,
    /// Of a job that somebody outside is at work on: when it fails unless they call back.
    pub waiting_until: Option<Timestamp>,
    /// When it was asked to stop, while it ran.
    pub cancel_requested_at: Option<Timestamp>,
    /// The failed or canceled job that it is another try of.
    pub retry_of: Option<Uuid>,
    /// The job that it was retried as.
    pub retried_as: Option<Uuid>,
    /// The caller's own.
    pub metadata: BTreeMap<String, String>,
    /// The caller's own.
    pub tags: Vec<String>,
    /// Who is told of it; the account's webhook unless there is one.
    pub webhook: Option<JobWebhook>,
    /// What became of its price.
    pub credits: JobCredits,
}

/// Who is told what of a job: by a message that is signed as Standard Webhooks has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobWebhook {
    /// HTTPS, public.
    #[cfg_attr(feature = "openapi", schema(max_length = 2000, pattern = "^https?://."))]
    pub url: String,
    /// Of what: `job.running`, `job.succeeded`, `job.failed`, `job.canceled`; of the last three unless it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
}

/// How far a run is.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobProgress {
    /// 0 to 100.
    pub percent: Option<i16>,
    /// For a person.
    pub message: Option<String>,
    /// When that was said.
    pub updated_at: Timestamp,
}

/// What became of a job's price.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobCredits {
    /// What was held when it was queued.
    pub price: i64,
    /// Still held.
    pub held: i64,
    /// Charged for good.
    pub captured: i64,
    /// Given back when it ended.
    pub released: i64,
    /// Given back later, by the operator: at most once.
    pub refunded: i64,
}

impl JobCredits {
    /// `captured` of a final job.
    fn of(price: i64, captured: Option<i64>, refunded: i64) -> Self {
        match captured {
            None => Self { price, held: price, captured: 0, released: 0, refunded },
            Some(captured) => Self { price, held: 0, captured, released: price - captured, refunded },
        }
    }
}

impl Job {
    pub(super) fn from_row(row: &Row) -> Result<Self, DbError> {
        Self::with(row, true)
    }

    /// The same; without its output, if that was not asked for. A job whose input was not has none.
    fn with(row: &Row, output: bool) -> Result<Self, DbError> {
        let time = |column: usize| row.get::<_, Option<_>>(column).map(Timestamp);
        let metadata = row.get::<_, Option<String>>(24).map(|text| serde_json::from_str(&text)).transpose();
        let webhook = row.get::<_, Option<String>>(28).map(|text| serde_json::from_str(&text)).transpose();
        let progress =
            time(21).map(|updated_at| JobProgress { percent: row.get(19), message: row.get(20), updated_at });
        Ok(Self {
            id: row.get(0),
            account_id: row.get(1),
            kind: row.get(2),
            status: status(row.get(3))?,
            credits: JobCredits::of(row.get(4), row.get(16), row.get::<_, Option<i64>>(26).unwrap_or(0)),
            attempt: row.get(5),
            max_attempts: row.get(6),
            crashes: row.get(17),
            progress,
            input: row.get::<_, Option<String>>(7).map(json).transpose()?,
            output: output.then(|| row.get::<_, Option<String>>(8).map(json).transpose()).transpose()?,
            error: row.get::<_, Option<String>>(9).map(json).transpose()?,
            run_at: Timestamp(row.get(10)),
            created_at: Timestamp(row.get(11)),
            started_at: time(12),
            finished_at: time(13),
            expires_at: Timestamp(row.get(14)),
            priority: row.get(15),
            cancel_requested_at: time(18),
            waiting_until: time(27),
            webhook: webhook.map_err(|error| DbError::Broken(error.to_string()))?,
            retry_of: row.get(22),
            retried_as: row.get(23),
            metadata: metadata.map_err(|error| DbError::Broken(error.to_string()))?.unwrap_or_default(),
            tags: row.get::<_, Option<_>>(25).unwrap_or_default(),
        })
    }
}

/// What a job may ask for beside its kind's policy.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JobOptions {
    /// When to try it again, where it differs from its kind's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryOverrides>,
    /// The caller's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The caller's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Who is told of it, instead of the account's webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<JobWebhook>,
}

impl JobOptions {
    /// As the statement takes them; `None` if nothing is asked for.
    fn to_json(&self) -> Result<Option<String>, DbError> {
        let Self { retry, metadata, tags, webhook } = self;
        if retry.is_none() && metadata.is_empty() && tags.is_empty() && webhook.is_none() {
            return Ok(None);
        }
        serde_json::to_string(self).map(Some).map_err(|error| DbError::Broken(error.to_string()))
    }
}

/// A job to buy.
#[derive(Debug, Clone, Copy)]
pub struct NewJob<'a> {
    /// The kind of the job: what is to be done, and at which price.
    pub kind: &'a str,
    /// With what.
    pub input: &'a RawValue,
    /// Higher first, -10 to what its kind allows; 0 is that at most.
    pub priority: i16,
    /// Not before: RFC 3339; now if `None` or past.
    pub run_at: Option<&'a str>,
    /// What else it asks for.
    pub options: &'a JobOptions,
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

/// Jobs of a list, and where it goes on.
#[derive(Debug)]
pub struct JobPage {
    /// Newest first. There may be fewer than were asked for, even none, although the list goes on.
    pub jobs: Vec<Job>,
    /// The [`JobFilter::before`] of the next page; `None` after the last.
    pub next: Option<Uuid>,
}

/// Which of an account's jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only those of one of these statuses; of any, if there is none.
    pub statuses: Vec<Status>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that have all of these: tags, and pairs of the metadata as `key=value`.
    pub labels: Vec<String>,
    /// Only those created before this one.
    pub before: Option<Uuid>,
    /// Only those created at this time (RFC 3339) or later, as their ids tell it.
    pub created_after: Option<String>,
    /// Only those created before this time.
    pub created_before: Option<String>,
    /// With their inputs.
    pub input: bool,
    /// With their outputs.
    pub output: bool,
}

/// What a replay reads its job again within: what is known of it without that is enough for an answer.
const REPLAY_BUDGET: Duration = Duration::from_secs(2);

impl Db {
    /// Holds the kind's price and queues the job, in one statement; or answers the job that `key` bought before, as it
    /// is now, by a second one. If that has no answer: as it was bought, since that it was is not in doubt.
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
        let options = job.options.to_json()?;
        let params = [
            (&account_id as _, Type::UUID),
            (&job.kind as _, Type::TEXT),
            (&job.input.get() as _, Type::TEXT),
            (&key as _, Type::TEXT),
            (&i32::from(job.priority) as _, Type::INT4),
            (&job.run_at as _, Type::TEXT),
            (&options as _, Type::TEXT),
        ];
        let rows = self.rows(ENQUEUE, &params, Again::if_keyed(key), deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("enqueue answered no row".into()))?;
        let id = row.get(0);
        let replayed = row.get(6);
        if replayed {
            match self.find_job(id, Some(account_id), deadline.within(REPLAY_BUDGET)).await {
                Ok(Some(job)) => return Ok(Enqueued { job, replayed, wake_after: None }),
                Ok(None) => return Err(DbError::Broken("a replayed job is not there".into())),
                Err(error) => {
                    tracing::warn!(job.id = %id, error = %error, "a replayed job is shown as it was bought")
                }
            }
        }
        let job = Job {
            id,
            kind: job.kind.to_owned(),
            account_id,
            status: Status::Queued,
            priority: row.get(8),
            input: Some(job.input.to_owned()),
            output: Some(None),
            error: None,
            attempt: 0,
            max_attempts: row.get(2),
            crashes: 0,
            progress: None,
            run_at: Timestamp(row.get(3)),
            created_at: Timestamp(row.get(4)),
            started_at: None,
            finished_at: None,
            expires_at: Timestamp(row.get(5)),
            waiting_until: None,
            cancel_requested_at: None,
            webhook: job.options.webhook.clone(),
            retry_of: None,
            retried_as: None,
            metadata: job.options.metadata.clone(),
            tags: job.options.tags.clone(),
            credits: JobCredits::of(row.get(1), None, 0),
        };
        Ok(Enqueued { job, replayed, wake_after: seconds(row.get(7)) })
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

    /// Whether a job is final, of `account_id` or, if `None`, of anybody; `None` if it is not there. Cheap.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn is_final(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<Option<bool>, DbError> {
        let params = [(&id as _, Type::UUID), (&account_id as _, Type::UUID)];
        let rows = self.rows(IS_FINAL, &params, Again::Safe, deadline).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Whether an idempotency key of an account has bought something.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn is_keyed(&self, account_id: Uuid, key: &str, deadline: Deadline) -> Result<bool, DbError> {
        let params = [(&account_id as _, Type::UUID), (&key as _, Type::TEXT)];
        Ok(!self.rows(IS_KEYED, &params, Again::Safe, deadline).await?.is_empty())
    }

    /// At most `limit` jobs of an account, newest first: no more than have [`PAGE_BYTES`](super::PAGE_BYTES), and of the jobs that
    /// no index finds by what is asked 10,000 are looked at.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn list_jobs(
        &self,
        account_id: Uuid,
        filter: &JobFilter,
        limit: i64,
        deadline: Deadline,
    ) -> Result<JobPage, DbError> {
        self.list_jobs_of(account_id, filter, limit, PAGE_BYTES, deadline).await
    }

    /// The same, with so many bytes at most, but for the first job.
    pub(super) async fn list_jobs_of(
        &self,
        account_id: Uuid,
        filter: &JobFilter,
        limit: i64,
        bytes: i64,
        deadline: Deadline,
    ) -> Result<JobPage, DbError> {
        let words: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
        let status = (!words.is_empty()).then(|| words.join(","));
        let params = [
            (&account_id as _, Type::UUID),
            (&status as _, Type::TEXT),
            (&filter.kind as _, Type::TEXT),
            (&filter.before as _, Type::UUID),
            (&filter.labels as _, Type::TEXT_ARRAY),
            (&limit as _, Type::INT8),
            (&bytes as _, Type::INT8),
            (&filter.created_after as _, Type::TEXT),
            (&filter.created_before as _, Type::TEXT),
            (&filter.input as _, Type::BOOL),
            (&filter.output as _, Type::BOOL),
        ];
        let rows = self.rows(LIST, &params, Again::Safe, deadline).await?;
        let first = rows.first().ok_or_else(|| DbError::Broken("a list answered no row".into()))?;
        let (next, found): (Option<Uuid>, i32) = (first.get(29), first.get(30));
        let jobs = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(0).is_some());
        let jobs = jobs.map(|row| Job::with(row, filter.output));
        let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
        let all = i32::try_from(jobs.len()) == Ok(found);
        let next = if all { next } else { jobs.last().map(|job| job.id) };
        Ok(JobPage { jobs, next })
    }
}

/// JSON as it is kept.
pub(super) fn json(text: String) -> Result<Box<RawValue>, DbError> {
    RawValue::from_string(text).map_err(|error| DbError::Broken(error.to_string()))
}

pub(super) fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)))
}

/// The status of that word.
pub(super) fn status(word: &str) -> Result<Status, DbError> {
    Status::parse(word).ok_or_else(|| DbError::Broken(format!("unknown status {word}")))
}
