//! The statement that buys many jobs at once.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    Again, Db, DbError,
    jobs::{seconds, status},
};
use crate::domain::{Deadline, Status};

pub(crate) const VALIDATE_BATCH: &str = include_str!("batch/validate_batch.sql");
pub(crate) const ENQUEUE_BATCH: &str = include_str!("batch/enqueue_batch.sql");

/// A job of a batch, in short.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchedJob {
    /// UUIDv7.
    pub id: Uuid,
    /// The kind of the job: what is to be done, and at which price.
    pub kind: String,
    /// Where the job stands.
    pub status: Status,
    /// What was held for it.
    pub price: i64,
    /// When a wake-up is due for it, if one is.
    #[serde(skip)]
    pub wake_after: Option<Duration>,
}

/// What a purchase would come to, were it made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Validated {
    /// What would be held for all jobs.
    pub price: i64,
    /// What the account would have left.
    pub available_after: i64,
}

/// A batch that was bought, now or before.
#[derive(Debug)]
pub struct EnqueuedBatch {
    /// Its jobs, in their order.
    pub jobs: Vec<BatchedJob>,
    /// Whether the idempotency key had bought it before.
    pub replayed: bool,
}

impl Db {
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
    /// Checks all that [`Db::enqueue_batch`] checks, and buys nothing.
    ///
    /// # Errors
    /// As [`Db::enqueue_batch`].
    pub async fn validate_batch(
        &self,
        account_id: Uuid,
        jobs: &str,
        deadline: Deadline,
    ) -> Result<Validated, DbError> {
        let params = [(&account_id as _, Type::UUID), (&jobs as _, Type::TEXT)];
        let rows = self.rows(VALIDATE_BATCH, &params, Again::Safe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("a validation answered no row".into()))?;
        Ok(Validated { price: row.get(0), available_after: row.get(1) })
    }
}
