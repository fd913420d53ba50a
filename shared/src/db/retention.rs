//! For how long history is kept (ADR 20): one function per statement.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError};
use crate::domain::Deadline;

pub(crate) const RETENTION: &str = include_str!("retention/retention.sql");
pub(crate) const SET_RETENTION: &str = include_str!("retention/set_retention.sql");
pub(crate) const PAST: &str = include_str!("retention/past.sql");
pub(crate) const REFUSE_GONE: &str = include_str!("retention/refuse_gone.sql");

/// The least and the most days that something is kept for: the least is more than a job can live, wait, and be told of.
const DAYS: (i32, i32) = (90, 36_500);

/// For how long what has happened is kept; the default is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Jobs with their inputs, outputs, attempts, labels and messages: days from their purchase, 90 to 36,500; a month goes as a
    /// whole, once its last day is past.
    #[serde(default = "Days::of_a_year")]
    pub payload_days: Days,
    /// Idempotency keys: days from their first use; no fewer than payloads. Used again later, a key buys.
    #[serde(default = "Days::of_a_year")]
    pub key_days: Days,
    /// The ledger entry by entry; then what the entries moved is carried in one. No less than payloads; for ever by default.
    #[serde(default)]
    pub money_days: Days,
}

/// A number of days, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Days {
    /// So many.
    Of(i32),
    /// For ever.
    #[default]
    Forever,
}

impl Days {
    fn of_a_year() -> Self {
        Self::Of(400)
    }

    fn number(self) -> Option<i32> {
        match self {
            Self::Of(days) => Some(days),
            Self::Forever => None,
        }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(days) => write!(f, "{days}"),
            Self::Forever => f.write_str("\"forever\""),
        }
    }
}

impl Serialize for Days {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(days) => serializer.serialize_i32(*days),
            Self::Forever => serializer.serialize_str("forever"),
        }
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Days(i32),
            Word(String),
        }
        let (least, most) = DAYS;
        match Written::deserialize(deserializer) {
            Ok(Written::Days(days)) if (least..=most).contains(&days) => Ok(Self::Of(days)),
            Ok(Written::Word(word)) if word == "forever" => Ok(Self::Forever),
            Ok(Written::Days(_) | Written::Word(_)) | Err(_) => Err(serde::de::Error::custom(format!(
                "it is a whole number of days from {least} to {most}, or \"forever\""
            ))),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { payload_days: Days::of_a_year(), key_days: Days::of_a_year(), money_days: Days::Forever }
    }
}

impl Retention {
    /// What makes no sense together.
    #[must_use]
    pub fn flaw(&self) -> Option<&'static str> {
        if self.key_days < self.payload_days {
            return Some("key_days: keys are kept for as long as payloads, at least");
        }
        (self.money_days < self.payload_days)
            .then_some("money_days: money is kept for as long as payloads, at least")
    }

    /// Whether something would be kept for less long than by another.
    #[must_use]
    pub fn is_shorter_than(&self, other: &Self) -> bool {
        self.payload_days < other.payload_days
            || self.key_days < other.key_days
            || self.money_days < other.money_days
    }
}

/// What a retention would delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// `jobs`, `idempotency keys` or `entries`.
    pub what: String,
    /// How many of them.
    pub number: i64,
    /// How many credits they moved.
    pub credits: Option<i64>,
    /// The day of the first, and of the last.
    pub days: (String, String),
}

impl Db {
    /// For how long what has happened is kept.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn retention(&self, deadline: Deadline) -> Result<Retention, DbError> {
        let rows = self.rows(RETENTION, &[], Again::Safe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("there is no retention".into()))?;
        let days = |column: usize| row.get::<_, Option<i32>>(column).map_or(Days::Forever, Days::Of);
        Ok(Retention { payload_days: days(0), key_days: days(1), money_days: days(2) })
    }

    /// What the next ticks would delete by this retention.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn past(&self, retention: &Retention, deadline: Deadline) -> Result<Vec<Past>, DbError> {
        let Retention { payload_days, key_days, money_days } = retention;
        let days = [payload_days.number(), key_days.number(), money_days.number()];
        let params = [(&days[0] as _, Type::INT4), (&days[1] as _, Type::INT4), (&days[2] as _, Type::INT4)];
        let rows = self.rows(PAST, &params, Again::Safe, deadline).await?;
        let past = rows.iter().map(|row| Past {
            what: row.get(0),
            number: row.get(1),
            credits: row.get(2),
            days: (row.get(3), row.get(4)),
        });
        Ok(past.collect())
    }

    /// Nothing, if this is not the id of a job that is past its retention, or could have been.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `gone` (410) if it is; another when there is no answer.
    pub async fn refuse_gone(&self, job_id: Uuid, deadline: Deadline) -> Result<(), DbError> {
        self.rows(REFUSE_GONE, &[(&job_id, Type::UUID)], Again::Safe, deadline).await.map(drop)
    }
}

/// Keeps history for so long from now on, in the caller's transaction.
///
/// # Errors
/// The driver's.
pub async fn set(transaction: &Transaction<'_>, retention: &Retention) -> Result<(), tokio_postgres::Error> {
    let Retention { payload_days, key_days, money_days } = retention;
    let days = [payload_days.number(), key_days.number(), money_days.number()];
    let params = [(&days[0] as _, Type::INT4), (&days[1] as _, Type::INT4), (&days[2] as _, Type::INT4)];
    transaction.query_typed(SET_RETENTION, &params).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Retention, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn days_are_bounded_or_for_ever() {
        assert_eq!(read("{}"), Ok(Retention::default()));
        let shorter = read(r#"{"payload_days": 90, "key_days": "forever", "money_days": 3650}"#);
        let shorter = shorter.unwrap_or_default();
        assert_eq!((shorter.payload_days, shorter.key_days), (Days::Of(90), Days::Forever));
        assert_eq!(shorter.money_days, Days::Of(3_650));
        for bad in ["89", "36501", "-1", "1.5", "null", "\"ever\"", "true"] {
            let error = read(&format!(r#"{{"payload_days": {bad}}}"#)).expect_err(bad);
            assert!(error.contains("from 90 to 36500, or \"forever\""), "{bad}: {error}");
        }
        assert!(read(r#"{"paylod_days": 400}"#).is_err());
    }

    #[test]
    fn what_is_shorter_deletes_and_payloads_go_first() {
        let default = Retention::default();
        let of =
            |payload, keys, money| Retention { payload_days: payload, key_days: keys, money_days: money };
        assert!(!default.is_shorter_than(&default));
        assert!(of(Days::Of(400), Days::Of(400), Days::Of(9_000)).is_shorter_than(&default));
        assert!(!of(Days::Forever, Days::Forever, Days::Forever).is_shorter_than(&default));
        assert_eq!(default.flaw(), None);
        assert!(of(Days::Of(400), Days::Of(399), Days::Forever).flaw().is_some());
        assert!(of(Days::Of(400), Days::Of(400), Days::Of(399)).flaw().is_some());
        assert!(of(Days::Forever, Days::Forever, Days::Of(400)).flaw().is_some());
    }
}
