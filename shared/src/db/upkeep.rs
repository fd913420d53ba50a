//! What is kept up beside the jobs: one function for the statement that does.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Again, Db, DbError};
use crate::domain::Deadline;

pub(crate) const KEEP_UP: &str = include_str!("upkeep/keep_up.sql");

impl Db {
    /// Takes a step of a task of upkeep, if it is due and nobody else is at it; answers whether there is another step. Once
    /// there is none, it is due again after `every`.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer: the step may have been taken. One that the database refuses is none: it is
    /// tried again later, and `punchcard.upkeep` says why.
    pub async fn keep_up(&self, task: &str, every: Duration, deadline: Deadline) -> Result<bool, DbError> {
        let every = i32::try_from(every.as_secs()).unwrap_or(i32::MAX);
        let params = [(&task as _, Type::TEXT), (&every as _, Type::INT4)];
        let rows = self.rows(KEEP_UP, &params, Again::Safe, deadline).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}
