//! One function per statement on a job's life: what is done to it from outside, and what is told of it afterwards.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    Again, Db, DbError, PAGE_BYTES,
    jobs::{Job, json, seconds, status},
};
use crate::domain::{Deadline, Timestamp};

pub(crate) const CANCEL: &str = include_str!("life/cancel.sql");
pub(crate) const RETRY: &str = include_str!("life/retry.sql");
pub(crate) const REDRIVE: &str = include_str!("life/redrive.sql");
pub(crate) const FAILED: &str = include_str!("life/failed.sql");
pub(crate) const REDRIVABLE: &str = include_str!("life/redrivable.sql");
pub(crate) const RUNS: &str = include_str!("life/runs.sql");
pub(crate) const EVENTS: &str = include_str!("life/events.sql");
pub(crate) const REFUND: &str = include_str!("life/refund.sql");
pub(crate) const LIMITS: &str = include_str!("life/limits.sql");
pub(crate) const SET_LIMITS: &str = include_str!("life/set_limits.sql");

/// A job that was bought once more.
#[derive(Debug)]
pub struct Retried {
    /// The id of the new job.
    pub job_id: Uuid,
    /// The new job.
    pub job: Job,
    /// When a wake-up is due for it, if one is.
    pub wake_after: Option<std::time::Duration>,
}

/// Which failed jobs: all that every member says.
#[derive(Debug, Clone, Default)]
pub struct FailedFilter {
    /// Of this kind.
    pub kind: Option<String>,
    /// Whose error has this code.
    pub code: Option<String>,
    /// Of this account.
    pub account_id: Option<Uuid>,
    /// That failed at this time (RFC 3339) or later.
    pub from: Option<String>,
    /// That failed before this time.
    pub until: Option<String>,
}

/// A failed job: a dead letter.
#[derive(Debug, Serialize)]
pub struct FailedJob {
    /// The job.
    pub id: Uuid,
    /// Who paid.
    pub account_id: Uuid,
    /// What was to be done.
    pub kind: String,
    /// What was held.
    pub price: i64,
    /// What of it was captured.
    pub captured: i64,
    /// Attempts that counted.
    pub attempt: i16,
    /// Runs that crashed.
    pub crashes: i16,
    /// When it failed.
    pub finished_at: Timestamp,
    /// Why.
    pub error: Option<Box<RawValue>>,
    /// The job that it was retried as.
    pub retried_as: Option<Uuid>,
}

/// Where among the failed jobs a page ended: when the last one failed, and which it was.
pub type Place = (Timestamp, Uuid);

/// Failed jobs of a list, and where it goes on.
#[derive(Debug)]
pub struct FailedPage {
    /// There may be fewer than were asked for, even none, although the list goes on.
    pub jobs: Vec<FailedJob>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Place>,
}

/// How a redrive goes on from the last one.
#[derive(Debug, Clone, Copy)]
pub struct RedrivePace {
    /// How many jobs at most, 1 to 1,000.
    pub limit: i32,
    /// How many of them a second; all at once if `None`.
    pub per_second: Option<f64>,
    /// In how many seconds the first is due.
    pub delay: f64,
    /// When the last job before these failed, and which it was.
    pub after: Option<Place>,
}

/// What a redrive did, and where the next one goes on.
#[derive(Debug)]
pub struct RedrivenPage {
    /// Oldest first. There may be fewer than were asked for, even none, although there is more.
    pub jobs: Vec<Redriven>,
    /// The [`RedrivePace::after`] of the next redrive; `None` if there is nothing more.
    pub next: Option<Place>,
}

/// What became of a failed job.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redriven {
    /// The failed job.
    pub job_id: Uuid,
    /// When it failed.
    pub finished_at: Timestamp,
    /// The job that it is retried as.
    pub retried_as: Option<Uuid>,
    /// What is held for that job; null if it is not retried.
    pub price: Option<i64>,
    /// Why it is not, in a word such as `insufficient_credits`, or `refused_by_database`: by a trigger of the team's, say.
    pub refused: Option<String>,
}

/// A run of a job that has ended.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Rises from run to run; there may be gaps.
    pub number: i64,
    /// Which attempt it was, as the policy counts: crashed and snoozed runs do not count.
    pub attempt: i16,
    /// `retry`, `snooze`, `crash`; or, of the run that ended the job, the job's status.
    pub ended: String,
    /// When it was claimed.
    pub started_at: Option<Timestamp>,
    /// When it was settled.
    pub ended_at: Timestamp,
    /// What went wrong.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::domain::job::ErrorShown>))]
    pub error: Option<Box<RawValue>>,
}

impl Run {
    /// From `number, attempt, ended, started_at, ended_at, error`, in this order.
    pub(super) fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            number: row.get(0),
            attempt: row.get(1),
            ended: row.get(2),
            started_at: row.get::<_, Option<OffsetDateTime>>(3).map(Timestamp),
            ended_at: Timestamp(row.get(4)),
            error: row.get::<_, Option<String>>(5).map(json).transpose()?,
        })
    }
}

/// A transition of a job.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Rises from one to the next, with gaps, and never changes.
    pub number: i64,
    /// `job.` and the status that the job came to.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub created_at: Timestamp,
    /// How many runs had counted as attempts by then; of a run, the one that it is.
    pub attempt: i16,
    /// Of a job that was queued again: how its run ended, in the word of its attempts.
    pub reason: Option<String>,
    /// What went wrong.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::domain::job::ErrorShown>))]
    pub error: Option<Box<RawValue>>,
}

/// What bounds an account beside its credits; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Jobs that are queued or running.
    pub unfinished_jobs: Option<i32>,
    /// Bytes of their inputs.
    pub unfinished_bytes: Option<i64>,
    /// Enqueues a minute.
    pub enqueues_per_minute: Option<i32>,
}

impl Limits {
    /// Whether one of them is a bound.
    #[must_use]
    pub fn bounds_something(&self) -> bool {
        self.unfinished_jobs.is_some()
            || self.unfinished_bytes.is_some()
            || self.enqueues_per_minute.is_some()
    }
}

/// The limits that somebody names: each is set, or lifted (`Some(None)`); of the others nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamedLimits {
    /// Jobs that are queued or running.
    pub unfinished_jobs: Option<Option<i32>>,
    /// Bytes of their inputs.
    pub unfinished_bytes: Option<Option<i64>>,
    /// Enqueues a minute.
    pub enqueues_per_minute: Option<Option<i32>>,
}

impl Db {
    /// Cancels a job, of `account_id` or, if `None`, of anybody: a queued one at once, a running one by asking its worker.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404) or `not_cancelable` (409).
    pub async fn cancel(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        self.cancel_and_show(id, account_id, deadline).await.map(drop)
    }

    /// The same; answers the job as it is then.
    ///
    /// # Errors
    /// The same.
    pub async fn cancel_and_show(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<Job, DbError> {
        let params = [(&id as _, Type::UUID), (&account_id as _, Type::UUID)];
        let rows = self.rows(CANCEL, &params, Again::Unsafe, deadline).await?;
        Job::from_row(rows.first().ok_or_else(|| DbError::Broken("cancel answered no row".into()))?)
    }

    /// Buys a failed or canceled job once more, as a new job.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404), `insufficient_credits` (402), `not_retryable` or `already_retried`
    /// (409), and as [`Db::enqueue`].
    pub async fn retry(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<Retried, DbError> {
        let params = [(&id as _, Type::UUID), (&account_id as _, Type::UUID)];
        let rows = self.rows(RETRY, &params, Again::Unsafe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("retry answered no row".into()))?;
        Ok(Retried { job_id: row.get(0), job: Job::from_row(row)?, wake_after: seconds(row.get(29)) })
    }

    /// Retries failed jobs of a kind in bulk, oldest first; looks at 10,000 failed jobs at most. `filter` must name the kind.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `invalid_redrive` (422).
    pub async fn redrive(
        &self,
        filter: &FailedFilter,
        pace: RedrivePace,
        deadline: Deadline,
    ) -> Result<RedrivenPage, DbError> {
        let (after_at, after_id) = pace.after.map(|(at, id)| (at.to_string(), id)).unzip();
        let params = [
            (&filter.kind as _, Type::TEXT),
            (&filter.code as _, Type::TEXT),
            (&filter.account_id as _, Type::UUID),
            (&filter.from as _, Type::TEXT),
            (&filter.until as _, Type::TEXT),
            (&pace.limit as _, Type::INT4),
            (&pace.per_second as _, Type::FLOAT8),
            (&pace.delay as _, Type::FLOAT8),
            (&after_at as _, Type::TEXT),
            (&after_id as _, Type::UUID),
        ];
        let rows = self.rows(REDRIVE, &params, Again::Unsafe, deadline).await?;
        let told = rows.iter().map(|row| Redriven {
            job_id: row.get(0),
            finished_at: Timestamp(row.get(1)),
            retried_as: row.get(2),
            refused: row.get(3),
            price: row.get(4),
        });
        // Neither one nor the other: no job, but how far it looked.
        let (jobs, looked): (Vec<_>, Vec<_>) =
            told.partition(|job| job.retried_as.is_some() || job.refused.is_some());
        let full = jobs.last().filter(|_| i32::try_from(jobs.len()) == Ok(pace.limit));
        let next = looked.first().or(full).map(|job| (job.finished_at, job.job_id));
        Ok(RedrivenPage { jobs, next })
    }

    /// At most `limit` failed jobs, newest first, behind a place; 10,000 are looked at.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn failed_jobs(
        &self,
        filter: &FailedFilter,
        limit: i64,
        after: Option<Place>,
        deadline: Deadline,
    ) -> Result<FailedPage, DbError> {
        self.dead_letters(FAILED, filter, limit, after, deadline).await
    }

    /// At most `limit` of the jobs that a redrive with this filter would retry, in its order, oldest first, behind a place;
    /// 10,000 are looked at.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn redrivable_jobs(
        &self,
        filter: &FailedFilter,
        limit: i64,
        after: Option<Place>,
        deadline: Deadline,
    ) -> Result<FailedPage, DbError> {
        self.dead_letters(REDRIVABLE, filter, limit, after, deadline).await
    }

    async fn dead_letters(
        &self,
        statement: &'static str,
        filter: &FailedFilter,
        limit: i64,
        after: Option<Place>,
        deadline: Deadline,
    ) -> Result<FailedPage, DbError> {
        let (after_at, after_id) = after.map(|(at, id)| (at.to_string(), id)).unzip();
        let params = [
            (&filter.kind as _, Type::TEXT),
            (&filter.code as _, Type::TEXT),
            (&filter.account_id as _, Type::UUID),
            (&filter.from as _, Type::TEXT),
            (&filter.until as _, Type::TEXT),
            (&limit as _, Type::INT8),
            (&after_at as _, Type::TEXT),
            (&after_id as _, Type::UUID),
        ];
        let rows = self.rows(statement, &params, Again::Safe, deadline).await?;
        let first = rows.first().ok_or_else(|| DbError::Broken("a list answered no row".into()))?;
        let looked = first.get::<_, Option<OffsetDateTime>>(10).map(Timestamp).zip(first.get(11));
        let there = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(0).is_some());
        let jobs = there.map(|row| {
            Ok(FailedJob {
                id: row.get(0),
                account_id: row.get(1),
                kind: row.get(2),
                price: row.get(3),
                captured: row.get(4),
                attempt: row.get(5),
                crashes: row.get(6),
                finished_at: Timestamp(row.get(7)),
                error: row.get::<_, Option<String>>(8).map(json).transpose()?,
                retried_as: row.get(9),
            })
        });
        let jobs = jobs.collect::<Result<Vec<FailedJob>, DbError>>()?;
        let full = jobs.last().filter(|_| i64::try_from(jobs.len()) == Ok(limit));
        let next = full.map(|job| (job.finished_at, job.id)).or(looked);
        Ok(FailedPage { jobs, next })
    }

    /// At most `limit` runs of a job that have ended, oldest first, after the one of that number: no more than have
    /// [`PAGE_BYTES`](super::PAGE_BYTES). And whether there are more.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn runs(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        after: i64,
        limit: i64,
        deadline: Deadline,
    ) -> Result<(Vec<Run>, bool), DbError> {
        let params = [
            (&id as _, Type::UUID),
            (&account_id as _, Type::UUID),
            (&after as _, Type::INT8),
            (&PAGE_BYTES as _, Type::INT8),
            (&limit as _, Type::INT8),
        ];
        let rows = self.rows(RUNS, &params, Again::Safe, deadline).await?;
        let runs = rows.iter().map(Run::from_row).collect::<Result<Vec<_>, DbError>>()?;
        let there: i64 = rows.first().map_or(0, |row| row.get(6));
        let more = i64::try_from(runs.len()).is_ok_and(|shown| shown < there);
        Ok((runs, more))
    }

    /// At most `limit` transitions of a job, oldest first, after the one of that number.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn events(
        &self,
        id: Uuid,
        account_id: Option<Uuid>,
        after: i64,
        limit: i64,
        deadline: Deadline,
    ) -> Result<Vec<Event>, DbError> {
        let params = [
            (&id as _, Type::UUID),
            (&account_id as _, Type::UUID),
            (&after as _, Type::INT8),
            (&limit as _, Type::INT8),
        ];
        let rows = self.rows(EVENTS, &params, Again::Safe, deadline).await?;
        let events = rows.iter().map(|row| {
            Ok(Event {
                number: row.get(0),
                kind: format!("job.{}", status(row.get(1))?),
                created_at: Timestamp(row.get(2)),
                attempt: row.get(3),
                reason: row.get(4),
                error: row.get::<_, Option<String>>(5).map(json).transpose()?,
            })
        });
        events.collect()
    }

    /// Gives back what was captured for a job, once; answers whose it was, and how much.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404), `nothing_captured` or `already_refunded` (409).
    pub async fn refund(
        &self,
        id: Uuid,
        reason: Option<&str>,
        deadline: Deadline,
    ) -> Result<(Uuid, i64), DbError> {
        let params = [(&id as _, Type::UUID), (&reason as _, Type::TEXT)];
        let rows = self.rows(REFUND, &params, Again::Unsafe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("refund answered no row".into()))?;
        Ok((row.get(0), row.get(1)))
    }

    /// The limits of every account that has some; of the nil UUID, those of all others.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn limits(&self, deadline: Deadline) -> Result<Vec<(Uuid, Limits)>, DbError> {
        let rows = self.rows(LIMITS, &[], Again::Safe, deadline).await?;
        let limits = rows.iter().map(|row| {
            let limits = Limits {
                unfinished_jobs: row.get(1),
                unfinished_bytes: row.get(2),
                enqueues_per_minute: row.get(3),
            };
            (row.get(0), limits)
        });
        Ok(limits.collect())
    }

    /// Bounds an account or, with the nil UUID, all that have no bounds of their own, by the limits that are
    /// named; others stay as they are. Answers all that hold now.
    ///
    /// # Errors
    /// [`DbError::Broken`] when a value is out of its range.
    pub async fn set_limits(
        &self,
        account_id: Uuid,
        limits: NamedLimits,
        deadline: Deadline,
    ) -> Result<Limits, DbError> {
        let NamedLimits { unfinished_jobs, unfinished_bytes, enqueues_per_minute } = limits;
        let params = [
            (&account_id as _, Type::UUID),
            (&unfinished_jobs.flatten() as _, Type::INT4),
            (&unfinished_bytes.flatten() as _, Type::INT8),
            (&enqueues_per_minute.flatten() as _, Type::INT4),
            (&unfinished_jobs.is_some() as _, Type::BOOL),
            (&unfinished_bytes.is_some() as _, Type::BOOL),
            (&enqueues_per_minute.is_some() as _, Type::BOOL),
        ];
        let rows = self.rows(SET_LIMITS, &params, Again::Safe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("set_limits answered no row".into()))?;
        Ok(Limits {
            unfinished_jobs: row.get(0),
            unfinished_bytes: row.get(1),
            enqueues_per_minute: row.get(2),
        })
    }
}
