//! One function per statement on `kinds`.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::{Again, Db, DbError};
use crate::domain::Deadline;

pub(crate) const LIST: &str = include_str!("kinds/list.sql");
pub(crate) const APPLY: &str = include_str!("kinds/apply.sql");

/// A kind: its price and policy. The defaults are those of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name; in `kinds.toml`, the name of its table.
    #[serde(default)]
    pub name: String,
    /// Credits.
    pub price: i64,
    /// Starts there may be.
    #[serde(default = "three")]
    pub max_attempts: i32,
    /// The delay after the first attempt.
    #[serde(default = "ten")]
    pub backoff_seconds: i32,
    /// The longest delay.
    #[serde(default = "hour")]
    pub backoff_max_seconds: i32,
    /// How long one attempt may take.
    #[serde(default = "thirty")]
    pub timeout_seconds: i32,
    /// Unfinished after this long, a job fails.
    #[serde(default = "week")]
    pub life_seconds: i32,
    /// Who starts it: `sqs`, at once where that is on, or only ever the `poll`er.
    #[serde(default)]
    pub dispatch: Dispatch,
    /// The HTTP target; without one, Rust code of that name.
    #[serde(default)]
    pub url: Option<String>,
    /// Which derivation of the kind's secret signs.
    #[serde(default = "one")]
    pub secret_version: i32,
    /// Whether it is no longer offered.
    #[serde(default, skip)]
    pub retired: bool,
}

/// Who starts the jobs of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// The poller, each minute.
    Poll,
    /// A wake-up by SQS, at once; the poller where SQS is off.
    #[default]
    Sqs,
}

fn one() -> i32 {
    1
}
fn three() -> i32 {
    3
}
fn ten() -> i32 {
    10
}
fn thirty() -> i32 {
    30
}
fn hour() -> i32 {
    3_600
}
fn week() -> i32 {
    604_800
}

impl Db {
    /// Every kind.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn list_kinds(&self, deadline: Deadline) -> Result<Vec<Kind>, DbError> {
        let rows = self.rows(LIST, &[], Again::Safe, deadline).await?;
        Ok(rows
            .iter()
            .map(|row| Kind {
                name: row.get(0),
                price: row.get(1),
                max_attempts: row.get(2),
                backoff_seconds: row.get(3),
                backoff_max_seconds: row.get(4),
                timeout_seconds: row.get(5),
                life_seconds: row.get(6),
                url: row.get(7),
                secret_version: row.get(8),
                retired: row.get(9),
                dispatch: if row.get(10) { Dispatch::Sqs } else { Dispatch::Poll },
            })
            .collect())
    }

    /// Offers exactly these kinds, all or nothing: others are retired, and what is queued of them fails and is released.
    ///
    /// # Errors
    /// [`DbError::Broken`] when a value is out of its range.
    pub async fn apply_kinds(&self, kinds: &[Kind], deadline: Deadline) -> Result<(), DbError> {
        let kinds = serde_json::to_string(kinds).map_err(|error| DbError::Broken(error.to_string()))?;
        self.rows(APPLY, &[(&kinds, Type::TEXT)], Again::Safe, deadline).await.map(drop)
    }
}
