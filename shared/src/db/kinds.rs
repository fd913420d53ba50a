//! One function per statement on `kinds`.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::{Again, Db, DbError};
use crate::domain::{Deadline, Growth};

pub(crate) const LIST: &str = include_str!("kinds/list.sql");
pub(crate) const APPLY: &str = include_str!("kinds/apply.sql");

/// A kind: its price and policy. The defaults are those of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name; in `kinds.toml`, the name of its table.
    #[serde(default)]
    pub name: String,
    /// Credits.
    pub price: i64,
    /// The highest priority that a caller may give its jobs, -10 to 10: 0 lets nobody go before others.
    #[serde(default)]
    pub max_priority: i16,
    /// Whether that is the most, and what was used is captured.
    #[serde(default)]
    pub metered: bool,
    /// What is kept of the price when a running job is canceled.
    #[serde(default)]
    pub on_cancel: Charge,
    /// What is kept of it when a job fails and its input is to blame: `release` or `capture`.
    #[serde(default)]
    pub on_input_error: Charge,
    /// Attempts there may be.
    #[serde(default = "three")]
    pub max_attempts: i32,
    /// Runs that may crash: out of time, or their worker killed.
    #[serde(default = "three")]
    pub max_crashes: i32,
    /// How the delays grow from attempt to attempt.
    #[serde(default)]
    pub backoff: Growth,
    /// The delay after the first attempt.
    #[serde(default = "ten")]
    pub backoff_seconds: i32,
    /// The longest delay.
    #[serde(default = "hour")]
    pub backoff_max_seconds: i32,
    /// The delays of the backoff `fixed`, and of no other.
    #[serde(default)]
    pub backoff_delays: Vec<i32>,
    /// The part of a delay that is left to chance, 0 to 1.
    #[serde(default = "half")]
    pub jitter: f64,
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
    /// Where the HTTP target is told of a job that was canceled while it was at work.
    #[serde(default)]
    pub cancel_url: Option<String>,
    /// Within what time a target that answered 202 calls back; then the job fails.
    #[serde(default = "hour")]
    pub callback_seconds: i32,
    /// Which derivation of the kind's secret signs.
    #[serde(default = "one")]
    pub secret_version: i32,
    /// Whether it is no longer offered.
    #[serde(default, skip)]
    pub retired: bool,
}

/// What is kept of a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Charge {
    /// Nothing.
    #[default]
    Release,
    /// All of it.
    Capture,
    /// The question does not arise: a running job cannot be canceled.
    Refuse,
}

impl Charge {
    fn parse(word: &str) -> Result<Self, DbError> {
        match word {
            "release" => Ok(Self::Release),
            "capture" => Ok(Self::Capture),
            "refuse" => Ok(Self::Refuse),
            other => Err(DbError::Broken(format!("unknown charge {other}"))),
        }
    }
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

fn half() -> f64 {
    0.5
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
        let kinds = rows.iter().map(|row| {
            let growth = Growth::parse(row.get(15));
            Ok(Kind {
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
                metered: row.get(11),
                on_cancel: Charge::parse(row.get(12))?,
                on_input_error: Charge::parse(row.get(13))?,
                max_crashes: row.get(14),
                backoff: growth.ok_or_else(|| DbError::Broken("unknown backoff".into()))?,
                backoff_delays: row.get(16),
                jitter: row.get(17),
                cancel_url: row.get(18),
                callback_seconds: row.get(19),
                max_priority: row.get(20),
            })
        });
        kinds.collect()
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
